# Shared by .ci/run and .ci/quickstart: a Python, and a virtual environment made with it. Sourced, not run.

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $*"
    exit 1
}

as_root() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

# Install Debian packages; the list of packages is fetched only when something is missing.
apt_install() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    [ "${#missing[@]}" = 0 ] && return 0
    say "installing with apt: ${missing[*]}"
    apt-get update -qq >&2 || return 1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

# Print the real path of a Python >= 3.10. The real one, since a shim may need the HOME that .ci/run replaces.
find_python() {
    local name
    for name in "${PYTHON:-python3}" python3 python3.13 python3.12 python3.11 python3.10 python3.14 python; do
        command -v "$name" >/dev/null || continue
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10)); ' 2>/dev/null || continue
        "$name" -c 'import sys; print(sys.executable)'
        return
    done
    die "no Python >= 3.10 found; install one, or name it: PYTHON=/path/to/python bash $0"
}

# make_venv PYTHON FOLDER: a virtual environment with pip. Debian's python3 comes without ensurepip: apt has it.
make_venv() {
    if ! "$1" -c 'import ensurepip' 2>/dev/null && as_root; then
        apt_install python3-venv || true
    fi
    if "$1" -c 'import ensurepip' 2>/dev/null; then
        "$1" -m venv --clear "$2"
    elif command -v uv >/dev/null; then
        uv venv --quiet --clear --seed --python "$1" "$2"
    elif "$1" -c 'import virtualenv' 2>/dev/null; then
        "$1" -m virtualenv --quiet --clear "$2"
    else
        die "$1 cannot make virtual environments; install the package python3-venv"
    fi
}
