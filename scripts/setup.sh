#!/usr/bin/env bash
# Makes sure that there is something to compute on: a Vulkan driver. Where there is none, installs one that computes on the CPU
# (Debian, Ubuntu). With --tests also what the test suite runs on: OpenGL in software, SwiftShader, the shader compilers DXC and Tint, and
# OpenAI's client for Python. With --browser also Chromium, for the tests of the page (scripts/web.sh --test).
# Does nothing where everything is there. Options: --tests, --browser, --help.
set -euo pipefail

tests=false browser=false
for argument in "$@"; do
  case $argument in
    --tests) tests=true ;;
    --browser) browser=true ;;
    -h | --help) sed -n '2,6s/^# //p' "$0"; exit 0 ;;
    *) echo "setup: unknown option $argument (known: --tests --browser)" >&2; exit 2 ;;
  esac
done

say() { echo "setup: $*" >&2; }

# A Vulkan driver whose manifest matches a name; any driver without one.
has_vulkan() {
  local folder
  for folder in /usr/share/vulkan/icd.d /etc/vulkan/icd.d /usr/local/share/vulkan/icd.d; do
    compgen -G "$folder/*${1-}*.json" >/dev/null && return 0
  done
  [ -z "${1-}" ] && [ -n "${VK_DRIVER_FILES:-}${VK_ADD_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ]
}
# Not by a pipe into `grep -q`, which ends early: ldconfig then fails, and by `pipefail` the pipe.
has_library() { [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null) == *"$1"* ]]; }
has_gl() { has_library libEGL.so.1 && compgen -G '/usr/lib/*/dri/swrast_dri.so' >/dev/null; }
has_swiftshader() { [ -f /usr/lib/chromium/vk_swiftshader_icd.json ]; }

# The client that the server is asked by: 46 MB, into target/tools.
openai() {
  local folder
  folder=$(dirname "$0")/../target/tools/openai
  [ -d "$folder" ] && return
  rm -rf "$folder.part"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --target "$folder.part" openai==3.57.0 >&2 || return 1
  mv "$folder.part" "$folder"
}

# The end where all went well: then the tests' compilers and the client are fetched.
finish() {
  if $tests; then
    "$(dirname "$0")/fetch-compilers.sh" || exit 1
    openai || { say "openai could not be installed by pip (is there a network?)"; exit 1; }
  fi
  exit
}

if [ "$(uname -s)" != Linux ]; then
  exit 0 # macOS and Windows bring Metal and DirectX 12 along.
fi

packages=()
if ! has_library libvulkan.so.1 || ! has_vulkan; then
  packages+=(mesa-vulkan-drivers libvulkan1)
  if compgen -G '/dev/nvidia[0-9]*' >/dev/null; then
    say "there is an NVIDIA GPU, but its Vulkan driver is not installed: install the full driver (in a container: NVIDIA_DRIVER_CAPABILITIES=all) to use it"
  fi
elif $tests && ! has_vulkan lvp; then
  packages+=(mesa-vulkan-drivers)
fi
if $tests; then
  has_gl || packages+=(libgl1-mesa-dri libegl1)
  has_swiftshader || packages+=(chromium-common)
  command -v npm >/dev/null || packages+=(nodejs npm)
  python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
fi
has_chromium() {
  local name
  for name in chromium chromium-browser google-chrome google-chrome-stable; do
    command -v "$name" >/dev/null && return
  done
  false
}
if $browser && ! has_chromium; then packages+=(chromium); fi
if [ ${#packages[@]} -eq 0 ]; then
  finish
fi

if ! command -v apt-get >/dev/null; then
  say "missing, by the names of Debian's packages: ${packages[*]}. A Vulkan driver is your GPU's, or Mesa's with the CPU driver \"lavapipe\":"
  say "  Fedora: dnf install mesa-vulkan-drivers; Arch: pacman -S vulkan-swrast; openSUSE: zypper install libvulkan_lvp"
  exit 1
fi

sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    say "please run as root: apt-get install ${packages[*]}"
    exit 1
  fi
  sudo=(sudo)
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get "$@" >>"$log" 2>&1; }
install() { apt install -y -q --no-install-recommends "$@"; }

say "not all that is needed is there; installing: ${packages[*]}"
# The first attempt fails on machines that never ran apt-get update.
if install "${packages[@]}" || { apt update -q && install "${packages[@]}"; }; then
  say "done"
  finish
fi
# Ubuntu has no chromium-common; the tests then do without SwiftShader.
wanted=()
for package in "${packages[@]}"; do
  if [ "$package" != chromium-common ]; then wanted+=("$package"); fi
done
if [ ${#wanted[@]} -lt ${#packages[@]} ]; then
  if [ ${#wanted[@]} -eq 0 ] || install "${wanted[@]}"; then
    say "done, but for SwiftShader: chromium-common could not be installed"
    finish
  fi
fi
tail -n 8 "$log" >&2
say "the packages could not be installed (is there a network?). By hand: apt-get update && apt-get install ${packages[*]}"
exit 1
