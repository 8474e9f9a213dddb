# Sourced by quickstart.sh and run_tests.sh: creates .venv in the repository, once per requirements file, and sets $PYTHON.
# An interrupted installation is resumed; a complete one is kept.

setup_env() { # $1: requirements file
    local home stamp system
    home="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    PYTHON="$home/.venv/bin/python"
    stamp="$home/.venv/installed_$1_$(cat "$home"/requirements*.txt | cksum | cut -d' ' -f1)"
    [ -f "$stamp" ] && return 0

    system="$(find_python)" || return 1
    echo "installing $1 into $home/.venv with $("$system" --version) (about 6 GB, a few minutes) ..."
    [ -x "$PYTHON" ] || "$system" -m venv "$home/.venv" || {
        echo "error: python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2
        return 1
    }
    "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$home/$1" || {
        echo "error: pip could not install $home/$1 (see above); run the same command again to resume" >&2
        return 1
    }
    touch "$stamp"
}

find_python() { # the first Python of 3.10 or newer; $LSEG_PYTHON overrides it
    local candidate
    for candidate in ${LSEG_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10 python}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    echo "error: no Python 3.10 or newer found; install one, or give its path: LSEG_PYTHON=/path/to/python" >&2
    return 1
}

setup_versions() { # $1: requirements file, $2: Python, such as 3.10, $3: lowest or newest; the environment is .venv-$2-$3
    local home system resolution
    home="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    PYTHON="$home/.venv-$2-$3/bin/python"
    resolution="$([ "$3" = lowest ] && echo lowest-direct || echo highest)"
    if [ ! -x "$PYTHON" ]; then
        for system in "python$2" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$2".*/bin/python; do
            "$system" -c "import sys; sys.exit(not sys.version.startswith('$2.'))" 2>/dev/null && break
            system=""
        done
        [ -n "$system" ] || {
            echo "error: no Python $2 found; install one as python$2, or with pyenv" >&2
            return 1
        }
        "$system" -m venv "$home/.venv-$2-$3"
    fi
    echo "installing the $3 versions of $1 into $home/.venv-$2-$3 (about 6 GB, a few minutes) ..."
    # pip cannot choose the lowest versions.
    "$PYTHON" -m pip install --quiet --disable-pip-version-check uv &&
        "$PYTHON" -m uv pip install --quiet --python "$PYTHON" --upgrade --resolution "$resolution" -r "$home/$1" || {
        echo "error: $home/$1 could not be installed (see above); run the same command again to resume" >&2
        return 1
    }
}
