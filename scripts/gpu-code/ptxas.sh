#!/usr/bin/env bash
# What NVIDIA's own compiler makes of a kernel: naga's HLSL by slangc to CUDA, by NVRTC to PTX, by ptxas to machine code. Leaves OUT/NAME.sass and prints
# registers and spills. Usage: ptxas.sh COMPILERS NAME.hlsl ENTRY OUT SM (75 or later)
set -euo pipefail
[ $# -eq 5 ] || { sed -n '2,3s/^# \{0,1\}//p' "$0" >&2; exit 2; }
scripts=$(cd "$(dirname "$0")" && pwd)
compilers=$(cd "$1" && pwd) sm=$5
mkdir -p "$4"
out=$4/$(basename "$2" .hlsl) slang=$compilers/nvidia/slangtorch/bin cuda=$compilers/nvidia/nvidia/cu13
cp "$2" "$out.cuda.hlsl"
python3 "$scripts/hlslfix.py" "$out.cuda.hlsl"
LD_LIBRARY_PATH=$slang "$slang/slangc" "$out.cuda.hlsl" -lang hlsl -entry "$3" -stage compute -target cuda -o "$out.cu" 2>"$out.slang" ||
  { head -n 5 "$out.slang" >&2; exit 1; }
python3 "$scripts/nvrtc.py" "$cuda/lib" "$out.cu" "compute_$sm" "$out.ptx"
"$cuda/bin/ptxas" -v -arch="sm_$sm" "$out.ptx" -o "$out.cubin" >"$out.ptxas" 2>&1 || { cat "$out.ptxas" >&2; exit 1; }
"$cuda/bin/nvdisasm" -c "$out.cubin" >"$out.sass"
grep -E 'Used|spill' "$out.ptxas" | sed 's/ptxas info *: *//' | tr -s ' \n' ' '
echo
