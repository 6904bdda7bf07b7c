#!/usr/bin/env bash
# Measures a GPU: whether its kernels are right, and how fast they are, with the defaults and tuned. Leaves a folder with pages to look at and JSON to send;
# it names the adapter, its driver and the system, and nothing of you. Takes less than eight minutes on a GPU. Usage: gpu-report.sh [ADAPTER] [FOLDER]
#   ADAPTER   as --adapter of wgformer has it: a number of `wgformer devices`, part of a name, a backend [default: the best]
#   FOLDER    [default: gpu-report]
# The environment's WGFORMER is the program [default: that of cargo's release build, which is made if there is cargo].
set -euo pipefail
case ${1-} in -h | --help) sed -n '2,6s/^# \{0,1\}//p' "$0"; exit 0 ;; esac
adapter=${1-} folder=${2-gpu-report}
if [ -z "${WGFORMER:-}" ]; then
  root=$(cd "$(dirname "$0")/.." && pwd)
  cargo build --release --locked --manifest-path "$root/Cargo.toml"
  WGFORMER=$root/target/release/wgformer
fi
chosen=()
[ -z "$adapter" ] || chosen=(--adapter "$adapter")
mkdir -p "$folder"
{ uname -srm; "$WGFORMER" --version; } >"$folder/system.txt"
"$WGFORMER" devices | tee "$folder/devices.txt"
failed=false
echo "is it right?"
"$WGFORMER" check "${chosen[@]}" --quick --json --html "$folder/check.html" --markdown "$folder/check.md" >"$folder/check.json" || failed=true
echo "how fast is it?"
"$WGFORMER" bench "${chosen[@]}" --json --html "$folder/bench.html" >"$folder/bench.json" || failed=true
echo "and tuned?"
"$WGFORMER" bench "${chosen[@]}" --tune full --json --html "$folder/tuned.html" >"$folder/tuned.json" || failed=true
echo "the report is in $folder: check.html, bench.html, tuned.html; check.json, bench.json and tuned.json are what others can use"
if $failed; then
  echo "something missed or failed: see above and $folder/check.json" >&2
  exit 1
fi
