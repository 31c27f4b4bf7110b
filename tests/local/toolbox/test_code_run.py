"""``/process/code-run``: programs, and the charts that they show."""

from __future__ import annotations

import base64
import json
import shutil

import pytest

from daytona_kernel.local.toolbox.chart_runner import MARKER as WRITTEN_MARKER
from daytona_kernel.local.toolbox.code_run import MARKER, take_charts

PLOT = "import matplotlib.pyplot as plt\n"


async def run(api, code, **fields):
    return await api("POST", "/process/code-run", json={"code": code, "language": "python", **fields})


async def charts_of(api, code):
    answer = await run(api, PLOT + code)
    assert answer["exitCode"] == 0, answer["result"]
    return answer["artifacts"]["charts"]


async def test_a_program_runs_and_its_output_comes_back(api):
    answer = await run(api, "import sys\nprint('a')\nprint('b', file=sys.stderr)\nsys.exit(3)")
    assert answer == {"exitCode": 3, "result": "a\nb\n"}


async def test_arguments_environment_and_place(api, daemon):
    code = "import sys, os; print(sys.argv, os.environ['X'], os.getcwd())"
    answer = await run(api, code, argv=["one", "two"], envs={"X": "y z"})
    assert answer["result"] == f"['-', 'one', 'two'] y z {daemon.home}\n"


async def test_a_syntax_error_is_a_traceback_and_not_zero(api):
    answer = await run(api, "def (:")
    assert answer["exitCode"] == 1
    assert "SyntaxError" in answer["result"]


async def test_too_long_is_408(api):
    body = {"code": "import time; time.sleep(60)", "language": "python", "timeout": 1}
    assert (await api.error("POST", "/process/code-run", 408, json=body))["code"] == "REQUEST_TIMEOUT"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": "1"},
        {"language": "python"},
        {"code": "1", "language": "cobol"},
        {"code": "1", "language": "python", "argv": "x"},
        {"code": "1", "language": "python", "timeout": -1},
        {"code": "1", "language": "python", "envs": {"a b": "c"}},
    ],
)
async def test_bad_requests_are_400(api, body):
    await api.error("POST", "/process/code-run", 400, json=body)


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
async def test_javascript_runs(api):
    code = "console.log(process.argv.slice(2).join('+'), [1, 2].map(x => x * 2))"
    answer = await run(api, code, language="javascript", argv=["a", "b"])
    assert answer == {"exitCode": 0, "result": "a+b [ 2, 4 ]\n"}


async def test_a_program_with_charts_behaves_as_any_other(api):
    code = PLOT + "import sys, __main__\nx = 1\nprint(__name__, __main__.x, sys.argv)\n1/0"
    answer = await run(api, code, argv=["a"])
    assert answer["exitCode"] == 1
    assert answer["result"].startswith("__main__ 1 ['-', 'a']\nTraceback (most recent call last):\n")
    assert '  File "<stdin>", line 5, in <module>\n' in answer["result"]
    assert answer["result"].count("File ") == 1
    answer = await run(api, PLOT + "raise SystemExit(4)")
    assert answer["exitCode"] == 4
    answer = await run(api, PLOT + "def (:")
    assert (answer["exitCode"], answer["result"].count("File ")) == (1, 1)


async def test_a_line_chart(api):
    [chart] = await charts_of(
        api,
        "print('before')\n"
        "plt.plot([0, 1, float('nan'), 3], [0, 1, 2, 9], label='squares')\nplt.plot([0, 3], [1, 1])\n"
        "plt.title('T'); plt.xlabel('X'); plt.ylabel('Y'); plt.yscale('log')\n"
        "plt.xticks([0, 3], ['a', 'b'])\n"
        "plt.show()",
    )
    assert base64.b64decode(chart.pop("png")).startswith(b"\x89PNG")
    assert (chart["type"], chart["title"], chart["x_label"], chart["y_label"]) == ("line", "T", "X", "Y")
    assert (chart["x_scale"], chart["y_scale"]) == ("linear", "log")
    assert (chart["x_ticks"], chart["x_tick_labels"]) == ([0, 3], ["a", "b"])
    assert chart["elements"] == [
        {"label": "squares", "points": [[0, 0], [1, 1], [3, 9]]},
        {"label": "", "points": [[0, 1], [3, 1]]},
    ]


async def test_the_lines_that_carry_charts_are_not_part_of_the_output(api):
    answer = await run(api, PLOT + "print('a', end='')\nplt.plot([1])\nplt.show()\nprint('b')\nplt.show()")
    assert answer["result"] == "ab\n"
    assert len(answer["artifacts"]["charts"]) == 1


async def test_scatter_bar_pie_and_box(api):
    scatter, bar, sideways, pie, box = await charts_of(
        api,
        "plt.figure(); plt.scatter([1, 2], [3, 4], label='s')\n"
        "plt.figure(); plt.bar(['a', 'b'], [1, 2.5], label='g')\n"
        "plt.figure(); plt.barh(['c'], [7])\n"
        "plt.figure(); plt.pie([1, 3], labels=['q', 't'])\n"
        "plt.figure(); plt.boxplot([[1, 2, 3, 4, 100]], positions=__import__('numpy').array([1]))\n"
        "plt.show()",
    )
    assert (scatter["type"], scatter["elements"]) == ("scatter", [{"label": "s", "points": [[1, 3], [2, 4]]}])
    assert bar["type"] == "bar"
    assert bar["elements"] == [
        {"label": "a", "value": "1", "group": "g"},
        {"label": "b", "value": "2.5", "group": "g"},
    ]
    assert sideways["elements"] == [{"label": "c", "value": "7", "group": ""}]
    assert pie["type"] == "pie"
    assert [(e["label"], round(e["angle"]), e["radius"]) for e in pie["elements"]] == [
        ("q", 90, 1),
        ("t", 270, 1),
    ]
    assert box["type"] == "box_and_whisker"
    [element] = box["elements"]
    assert element == {
        "label": "1",
        "min": 1,
        "first_quartile": 2,
        "median": 3,
        "third_quartile": 4,
        "max": 4,
        "outliers": [100],
    }


async def test_several_axes_are_a_composite_chart(api):
    [chart] = await charts_of(
        api,
        "f, (a, b) = plt.subplots(1, 2)\na.plot([1, 2])\na.set_title('left')\nb.bar([1], [2])\n"
        "f.suptitle('both')\nplt.show()",
    )
    assert (chart["type"], chart["title"]) == ("composite_chart", "both")
    assert [(e["type"], e["title"]) for e in chart["elements"]] == [("line", "left"), ("bar", "")]


async def test_other_figures_are_unknown_but_have_a_picture(api):
    [image] = await charts_of(api, "plt.imshow([[1, 2], [3, 4]]); plt.colorbar(); plt.show()")
    assert image["type"] == "unknown"
    assert image["png"]


async def test_the_sdk_reads_the_charts(api):
    from daytona.common.charts import BoxAndWhiskerChart, LineChart, parse_chart
    from daytona_toolbox_api_client import CodeRunResponse

    answer = await run(api, PLOT + "plt.plot([1, 2])\nplt.show()\nplt.boxplot([[1, 2, 3]])\nplt.show()")
    charts = [parse_chart(chart) for chart in CodeRunResponse.from_dict(answer).artifacts.charts]
    assert [type(chart) for chart in charts] == [LineChart, BoxAndWhiskerChart]
    assert charts[0].elements[0].points == [[0, 1], [1, 2]]


def test_the_marker_is_the_same_on_both_sides():
    assert MARKER == WRITTEN_MARKER


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"title": 5},
        {"x_ticks": ["a"]},
        {"x_tick_labels": [1]},
        {"elements": {}},
        {"elements": [{"points": [1]}]},
        {"elements": [{"value": 3}]},
    ],
)
def test_a_chart_that_does_not_fit_the_api_is_dropped_with_its_line(value):
    line = MARKER + json.dumps({"type": "chart", "value": value})
    assert take_charts(f"a\n{line}\nb\n") == ("a\nb\n", [])


def test_lines_that_only_look_like_charts_are_dropped():
    assert take_charts(f"x{MARKER}not json\ny") == ("xy", [])
