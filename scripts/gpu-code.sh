#!/usr/bin/env bash
# Compiles the kernels for GPUs by the compilers of AMD, NVIDIA, Apple, Intel and Qualcomm, without a GPU, and holds registers, spills, local memory and the
# share of multiply-adds against tests/gpu_code/limits.tsv. Debian on x86-64; the compilers come into target/gpu-compilers (1 GB). Options:
#   --short        one chip a vendor, without Intel, whose shim takes minutes to build: as CI has it
#   --save         writes today's numbers as limits, and the table of docs/guide/kernels.md
#   --chips LIST, --cases LIST   only these, separated by commas, without limits
# The environment's GPU_CODE is the program, if examples/gpu_code.rs is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
compilers=target/gpu-compilers
intel=(--intel) chosen=() more=(--limits tests/gpu_code/limits.tsv)
while [ $# -gt 0 ]; do
  case $1 in
    --short) intel=() chosen=(--chips amd:navi31,sm_86,apple:m1,adreno:740) ;;
    --save) more+=(--save --guide docs/guide/kernels.md) ;;
    --chips | --cases) chosen+=("$1" "${2?a list}") more=(); shift ;;
    -h | --help) sed -n '2,7s/^# //p' "$0"; exit 0 ;;
    *) echo "gpu-code: unknown option $1 (--help)" >&2; exit 2 ;;
  esac
  shift
done
# A mirror may fail once; what has come stays.
scripts/gpu-code/fetch.sh "${intel[@]}" "$compilers" || scripts/gpu-code/fetch.sh "${intel[@]}" "$compilers"
if [ -z "${GPU_CODE:-}" ]; then
  cargo build --locked --quiet --example gpu_code
  GPU_CODE=target/debug/examples/gpu_code
fi
exec python3 scripts/gpu-code/sweep.py --compilers "$compilers" --out target/gpu-code "${chosen[@]}" "${more[@]}" "$GPU_CODE"
