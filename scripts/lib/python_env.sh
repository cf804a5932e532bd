# Sourced by the scripts that need Python packages: one virtual environment, made on first use.
#
#   python_env numpy gguf     leaves the interpreter's path in $PYTHON, with these packages importable
#
# The environment is .venv in the repository's root, or $TESSERA_VENV. Packages are named as they are both
# imported and installed. A second call installs nothing and takes well under a second.

repository_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python_folder="${TESSERA_VENV:-$repository_root/.venv}"
PYTHON="$python_folder/bin/python"

python_env() {
  [ -x "$PYTHON" ] && "$PYTHON" -m pip --version >/dev/null 2>&1 || make_python_folder
  local missing
  missing="$(missing_packages "$@")"
  [ -z "$missing" ] && return
  echo "installing Python packages into $python_folder:" $missing >&2
  "$PYTHON" -m pip install --quiet --disable-pip-version-check $missing >&2
}

make_python_folder() {
  echo "making a Python environment in $python_folder" >&2
  if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    echo "error: python3 with its venv module is not installed" >&2
    echo "  on Debian and Ubuntu: apt-get install python3-venv" >&2
    exit 2
  fi
  python3 -m venv --clear "$python_folder"
}

missing_packages() {
  "$PYTHON" - "$@" <<'END'
import importlib.util, sys
print(*(name for name in sys.argv[1:] if importlib.util.find_spec(name) is None))
END
}
