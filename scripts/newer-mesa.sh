#!/usr/bin/env bash
# Runs tests on a newer lavapipe than the machine's: Mesa of a newer Debian, unpacked into target/newer-mesa and used by the tests'
# processes alone. Takes the arguments of cargo test. Needs Debian (x86_64 or aarch64). Usage:
#   newer-mesa.sh --test gpu -- '[Vulkan'
set -euo pipefail
cd "$(dirname "$0")/.."

release=trixie-backports
folder=$PWD/target/newer-mesa
case ${1-} in
  -h | --help | '') sed -n '2,4s/^# //p' "$0"; exit 0 ;;
esac

# Wider vectors than the CPU's registers are the driver's to split, and it cannot: reads through textures end the process.
if [ "${LP_NATIVE_VECTOR_WIDTH:-0}" -gt 256 ] && ! grep -qw avx512f /proc/cpuinfo; then
  echo "newer-mesa: LP_NATIVE_VECTOR_WIDTH=$LP_NATIVE_VECTOR_WIDTH needs a CPU with AVX-512, which this one is not" >&2
  exit 2
fi

if [ ! -e "$folder/complete" ]; then
  rm -rf "$folder"
  scripts/debian-packages.sh "$release" "$folder" mesa-vulkan-drivers libvulkan1
  touch "$folder/complete"
fi
machine=$(uname -m)
library=$folder/usr/lib/$machine-linux-gnu
loader=$(compgen -G "$library/ld-linux-*.so.*" | head -n 1)
host=$(rustc -vV | sed -n 's/^host: //p')
runner=CARGO_TARGET_$(echo "$host" | tr 'a-z-' 'A-Z_')_RUNNER
# The newer Mesa wants its own C library, so that the tests are started by that one's loader.
export "$runner=$loader --library-path $library"
export VK_DRIVER_FILES=$folder/usr/share/vulkan/icd.d/lvp_icd.json
unset VK_ADD_DRIVER_FILES VK_ICD_FILENAMES
version=$(zcat "$folder/usr/share/doc/mesa-vulkan-drivers/changelog.Debian.gz" | sed -n '1s/.*(\(.*\)).*/\1/p')
echo "newer-mesa: $version" >&2
exec cargo test --locked "$@"
