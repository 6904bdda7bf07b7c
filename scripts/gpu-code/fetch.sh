#!/usr/bin/env bash
# Fetches the compilers of GPUs that this machine does not have, and what runs them: Mesa's drivers of AMD, NVIDIA, Apple and Qualcomm with shims in
# place of the kernel's drivers, NVIDIA's own ptxas, and with --intel Mesa's for Intel, whose shim is built from source (minutes). 0.9 GB, into FOLDER.
# Needs Debian on x86-64, a C compiler and Python 3 with pip. What is there stays. Usage: fetch.sh [--intel] FOLDER
set -euo pipefail
scripts=$(cd "$(dirname "$0")" && pwd)
intel=false
case ${1-} in
  -h | --help | '') sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  --intel) intel=true; shift ;;
esac
mkdir -p "$1"
folder=$(cd "$1" && pwd)
say() { echo "gpu-code: $*" >&2; }

if [ "$(uname -s) $(uname -m)" != "Linux x86_64" ]; then
  say "the shims and NVIDIA's wheels are for Linux on x86-64"
  exit 1
fi
if [ ! -e "$folder/mesa/complete" ]; then
  say "Mesa's drivers"
  rm -rf "$folder/mesa"
  "$scripts/../debian-packages.sh" trixie-backports "$folder/mesa" mesa-vulkan-drivers mesa-drm-shim libvulkan1 libvulkan-dev
  touch "$folder/mesa/complete"
fi
mkdir -p "$folder/layer"
gcc -O1 -shared -fPIC -fvisibility=hidden -I"$folder/mesa/usr/include" "$scripts/stats_layer.c" -o "$folder/layer/libstats_layer.so" -lpthread
cp "$scripts/stats_layer.json" "$folder/layer/"

if [ ! -e "$folder/nvidia/complete" ]; then
  say "NVIDIA's compilers, and slang's"
  rm -rf "$folder/nvidia"
  python3 -m pip install --quiet --root-user-action ignore --no-deps --disable-pip-version-check --target "$folder/nvidia" \
    nvidia-cuda-nvcc==13.5.37 nvidia-nvvm==13.5.37 nvidia-cuda-nvrtc==13.5.37 nvidia-cuda-nvdisasm==13.5.37 slangtorch==1.3.22
  touch "$folder/nvidia/complete"
fi

if ! $intel || [ -e "$folder/intel/libintel_noop_drm_shim.so" ]; then
  exit 0
fi
say "Intel's shim from Mesa's source, a few minutes"
build=$folder/build
mkdir -p "$build" "$folder/intel"
if [ ! -d "$build/mesa" ]; then
  "$scripts/../debian-packages.sh" --source trixie "$build/source" mesa
  mkdir -p "$build/part"
  tar -xf "$build"/source/mesa_*.orig.tar.xz -C "$build/part" --strip-components 1
  mv "$build/part" "$build/mesa"
fi
# flex, bison and headers of this machine's own release, since its compiler and linker use them.
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
[ -d "$build/tools" ] || "$scripts/../debian-packages.sh" --alone "$release" "$build/tools" flex bison m4 zlib1g-dev libzstd-dev libexpat1-dev libdrm-dev \
  libdrm2 libdrm-intel1 libpciaccess-dev libpciaccess0 libudev-dev
[ -x "$build/venv/bin/ninja" ] || { python3 -m venv "$build/venv"; "$build/venv/bin/pip" -q install meson ninja mako pyyaml packaging setuptools; }
tools=$build/tools/usr
libraries=$tools/lib/x86_64-linux-gnu
export PATH=$build/venv/bin:$tools/bin:$PATH BISON_PKGDATADIR=$tools/share/bison M4=$tools/bin/m4
export CPATH=$tools/include:$tools/include/libdrm LIBRARY_PATH=$libraries
export PKG_CONFIG_LIBDIR=$libraries/pkgconfig:$tools/share/pkgconfig PKG_CONFIG_SYSROOT_DIR=$build/tools
log=$build/log
{ [ -e "$build/out/build.ninja" ] || meson setup "$build/out" "$build/mesa" -Dvulkan-drivers= -Dgallium-drivers= -Dtools=intel,drm-shim -Dplatforms= \
    -Dglx=disabled -Degl=disabled -Dgbm=disabled -Dllvm=disabled -Dopengl=false -Dgles1=disabled -Dgles2=disabled -Dvideo-codecs= -Dvalgrind=disabled \
    -Dlibunwind=disabled -Dzstd=disabled -Dbuildtype=plain; } >"$log" 2>&1 || { tail -n 15 "$log" >&2; exit 1; }
ninja -C "$build/out" src/intel/tools/libintel_noop_drm_shim.so >"$log" 2>&1 || { tail -n 15 "$log" >&2; exit 1; }
cp "$build/out/src/intel/tools/libintel_noop_drm_shim.so" "$folder/intel/"
rm -rf "$build"
