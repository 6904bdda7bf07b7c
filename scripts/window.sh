#!/usr/bin/env bash
# Builds the window of examples/window, and draws some hundred frames of it under Xvfb, on a Vulkan driver that computes on the CPU: the model must
# learn, answer and disturb nothing, and the picture of the window is kept in target/window. What is missing is installed (Debian). Usage:
#   window.sh            builds, draws and judges
#   window.sh --keep     also puts the picture into the guide
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "window: $*" >&2; }

keep=false
for argument in "$@"; do
  case $argument in
    --keep) keep=true ;;
    -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
    *) say "unknown option $argument (known: --keep)"; exit 2 ;;
  esac
done

scripts/setup.sh
packages=()
command -v Xvfb >/dev/null || packages+=(xvfb)
for library in libxkbcommon-x11.so.0:libxkbcommon-x11-0 libXcursor.so.1:libxcursor1 libXi.so.6:libxi6 libXrandr.so.2:libxrandr2 libX11-xcb.so.1:libx11-xcb1; do
  [[ $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p) == *"${library%:*}"* ]] || packages+=("${library#*:}")
done
if [ ${#packages[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { say "missing, and there is no apt-get to install it: ${packages[*]}"; exit 1; }
  as_root=()
  if [ "$(id -u)" != 0 ]; then as_root=(sudo); fi
  "${as_root[@]}" apt-get install --yes --no-install-recommends "${packages[@]}" >&2
fi

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")/window
CARGO_TARGET_DIR=$target cargo build --locked --quiet --manifest-path examples/window/Cargo.toml
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"; [ -z "${server:-}" ] || kill "$server"' EXIT
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-$scratch}
lavapipe=$(compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json' | head -n 1)
export VK_DRIVER_FILES=$lavapipe WGPU_BACKEND=vulkan

# The server says which display it took.
Xvfb -displayfd 3 -screen 0 1280x800x24 -nolisten tcp 3>"$scratch/display" 2>"$scratch/server" &
server=$!
for _ in $(seq 100); do
  [ -s "$scratch/display" ] && break
  sleep 0.1
done
[ -s "$scratch/display" ] || { say "Xvfb did not start: $(cat "$scratch/server")"; exit 1; }
DISPLAY=:$(cat "$scratch/display")
export DISPLAY
picture=$target/window.png
timeout 600 "$target/debug/wgformer-window" --frames 1500 --screenshot "$picture" >"$scratch/said"
cat "$scratch/said"
python3 - "$scratch/said" "$picture" <<'END'
import json, struct, sys
said = json.loads(open(sys.argv[1]).read().splitlines()[-1])
head = open(sys.argv[2], "rb").read(24)
size = struct.unpack(">II", head[16:24])
wrong = [what for what, right in {
    f"an error: {said['error']}": said["error"] is None,
    "too few steps": said["steps"] >= 40,
    "the loss does not fall": said["last_losses"] < said["first_losses"] - 0.3,
    "no answer": said["tokens"] >= 10,
    f"a picture of {size}": head[:8] == b"\x89PNG\r\n\x1a\n" and min(size) >= 500,
}.items() if not right]
if wrong:
    sys.exit("window: " + "; ".join(wrong))
END
if $keep; then
  cp "$picture" docs/guide/window.png
  say "docs/guide/window.png has $(stat -c %s docs/guide/window.png) bytes"
fi
