#!/usr/bin/env bash
# Makes the page of web/ for browsers: WebAssembly, its JavaScript and what they need, in target/web/page. What is missing for it is installed,
# or named: Rust's standard library for wasm32-unknown-unknown, a linker. Usage:
#   web.sh            builds, and says the sizes
#   web.sh --draft    less optimised: sooner built, and larger (9.9 MB where it is 6.2)
#   web.sh --serve    builds, and serves the page at http://127.0.0.1:8000 (another port: PORT=…)
#   web.sh --test     builds, and runs tests/browser in Chromium, which it installs where there is none (Debian)
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "web: $*" >&2; }

mode=build draft=false
for argument in "$@"; do
  case $argument in
    --serve | --test) mode=${argument#--} ;;
    --draft) draft=true ;;
    -h | --help) sed -n '2,7s/^# //p' "$0"; exit 0 ;;
    *) say "unknown option $argument (known: --draft --serve --test)"; exit 2 ;;
  esac
done

target=wasm32-unknown-unknown
root=$(realpath -m "${CARGO_TARGET_DIR:-target}")
page=$root/web/page
unset CARGO_TARGET_DIR

build() {
  local CARGO_TARGET_DIR=$root/web
  export CARGO_TARGET_DIR
  mkdir -p "$CARGO_TARGET_DIR"
  . scripts/rust-std.sh
  if ! find_std "$target"; then
    say "there is no standard library for $target: rustup target add $target"
    exit 1
  fi
  # rustup's compilers bring a linker along, distributions' may not.
  if ! compgen -G "$(rustc --print sysroot)/lib/rustlib/*/bin/rust-lld" >/dev/null; then
    local linker
    for linker in rust-lld wasm-ld wasm-ld-19 ''; do
      [ -n "$linker" ] || { say "there is no linker for WebAssembly: install lld (Debian: apt-get install lld-19)"; exit 1; }
      if command -v "$linker" >/dev/null; then break; fi
    done
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$linker
  fi
  if $draft; then
    export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
  fi
  cargo build --quiet --locked --release "${std[@]}" --target "$target" --manifest-path web/Cargo.toml -p wgformer-web
}

build
rm -rf "$page.part"
# The program that writes the JavaScript is of the version that the lock file has of the library.
CARGO_TARGET_DIR=$root/web cargo run --quiet --locked --manifest-path web/Cargo.toml -p wgformer-web-glue -- \
  "$root/web/$target/release/wgformer_web.wasm" "$page.part"
cp web/index.html web/page.js "$page.part"
rm -rf "$page"
mv "$page.part" "$page"
wasm=$page/wgformer_web_bg.wasm
say "$page: the WebAssembly has $(stat -c %s "$wasm") bytes, $(gzip -9 -c "$wasm" | wc -c) by gzip"

case $mode in
  serve) exec python3 web/server.py --port "${PORT:-8000}" "$page" ;;
  test)
    scripts/setup.sh --browser
    REQUIRE_BROWSER=1 cargo test --locked --test browser
    ;;
esac
