#!/usr/bin/env bash
# Runs a Vulkan program on a GPU that is not there. What it submits is not computed; what the driver made of its compute pipelines lies in OUT: stats.tsv,
# SPIR-V, machine code. Usage: run.sh COMPILERS CHIP OUT PROGRAM ARGUMENT...
#   COMPILERS  the folder that fetch.sh filled
#   CHIP       amd:navi31 (any that RADV knows), nvidia:172 (NVK: 162 Turing, 172 Ampere), apple:m1, adreno:740, intel:dg2
# The environment's STATS_NO_ROBUST=1 leaves robust buffer access off.
set -euo pipefail
[ $# -ge 4 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
scripts=$(cd "$(dirname "$0")" && pwd)
compilers=$(cd "$1" && pwd) chip=$2 out=$3
shift 3
libraries=$compilers/mesa/usr/lib/x86_64-linux-gnu name=${chip#*:}
case $chip in
  amd:*) driver=radeon shim=$libraries/libamdgpu_noop_drm_shim.so; export AMDGPU_GPU_ID=$name ;;
  nvidia:*) driver=nouveau shim=$libraries/libnouveau_noop_drm_shim.so; export NOUVEAU_CHIPSET=$name ;;
  adreno:*) driver=freedreno shim=$libraries/libfreedreno_noop_drm_shim.so; export FD_GPU_ID=$name ;;
  apple:*) driver=asahi shim=$libraries/libasahi_noop_drm_shim.so; export AGX_MESA_DEBUG=shaders ;;
  intel:*) driver=intel shim=$compilers/intel/libintel_noop_drm_shim.so; export INTEL_STUB_GPU_PLATFORM=$name ;;
  *) echo "gpu-code: unknown chip $chip" >&2; exit 2 ;;
esac
[ -e "$shim" ] || { echo "gpu-code: $shim is missing: run fetch.sh" >&2; exit 2; }
mkdir -p "$out"
out=$(cd "$out" && pwd)
rm -f "$out"/[0-9][0-9][0-9]-* "$out/stats.tsv" "$out/agx.txt"
export VK_DRIVER_FILES=$compilers/mesa/usr/share/vulkan/icd.d/${driver}_icd.json MESA_SHADER_CACHE_DISABLE=1
export VK_LAYER_PATH=$compilers/layer VK_INSTANCE_LAYERS=VK_LAYER_offline_stats STATS_OUT=$out
unset VK_ADD_DRIVER_FILES
command=(timeout 300 "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" --preload "$shim" "$@")
case $chip in
  apple:*)
    # This driver prints its texts among what the program says.
    "${command[@]}" >"$out/agx.txt" 2>&1 || { code=$?; grep -iE '^(error|stats layer|thread)' "$out/agx.txt" >&2 || true; exit "$code"; }
    [ ! -e "$out/stats.tsv" ] || python3 "$scripts/analyze.py" --split "$out"
    ;;
  *) exec "${command[@]}" ;;
esac
