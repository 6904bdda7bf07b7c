#!/usr/bin/env bash
# Builds wgformer for C and for Python, in target/bindings, and tests both. Usage:
#   bindings.sh            both
#   bindings.sh --c        C: the library, a program in C against golden files, the programs of the guide
#   bindings.sh --python   Python: the wheel, its tests against golden files, the guide
# It needs a C compiler, and Python 3.9 or newer with venv; PYTHON names another Python. maturin and numpy come from PyPI, into a folder of their own.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "bindings: $*" >&2; }

c=true python=true
for argument in "$@"; do
  case $argument in
    --c) python=false ;;
    --python) c=false ;;
    -h | --help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
    *) say "unknown option $argument (known: --c --python)"; exit 2 ;;
  esac
done
if ! $c && ! $python; then c=true python=true; fi

root=$(realpath -m "${CARGO_TARGET_DIR:-target}")/bindings
export CARGO_TARGET_DIR=$root
# Mesa complains when it is not set, as in containers.
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
export PYTHONDONTWRITEBYTECODE=1

if $c; then
  command -v "${CC:-cc}" >/dev/null || { say "there is no C compiler: install one (Debian: apt-get install build-essential)"; exit 1; }
  cargo test --locked --manifest-path bindings/Cargo.toml -p wgformer-c
fi

if $python; then
  interpreter=${PYTHON:-python3}
  if ! "$interpreter" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    say "$interpreter is not Python 3.9 or newer with venv: install it (Debian: apt-get install python3-venv), or name one by PYTHON"
    exit 1
  fi
  environment=$root/venv
  [ -x "$environment/bin/python" ] || "$interpreter" -m venv "$environment"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check 'maturin>=1.9,<2' 'numpy>=1.23' 'mypy>=1.8,<2'
  rm -rf "$root/wheels"
  (cd bindings/python && VIRTUAL_ENV=$environment "$environment/bin/maturin" build --quiet --locked --profile dev --out "$root/wheels")
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$root"/wheels/*.whl
  "$environment/bin/python" -m mypy --strict --cache-dir "$root/mypy" bindings/python/python/wgformer
  # From another folder, so that the wheel is tested and not the source.
  tests=$PWD/bindings/python/tests
  (cd "$root" && "$environment/bin/python" -m unittest discover --start-directory "$tests" --verbose)
fi
