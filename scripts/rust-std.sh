# For other scripts: `find_std TARGET` finds or fetches the standard library of a target. CARGO_TARGET_DIR is set.
# Rust's standard library for a target comes from rustup; where rustup cannot fetch it, it is built from its source
# (rustup's component rust-src, or Debian's package).
# shellcheck shell=bash

# Whether rustup did something, in a bounded time: machines without its servers must not wait for long.
rustup_did() { command -v rustup >/dev/null && timeout 300 rustup "$@" >"$CARGO_TARGET_DIR/rustup.log" 2>&1; }
# The options by which cargo finds the standard library of a target; fails where there is none.
std=()
find_std() {
  std=()
  if compgen -G "$(rustc --print target-libdir --target "$1")/libstd-*.rlib" >/dev/null || rustup_did target add "$1"; then
    return 0
  fi
  local version source
  version=$(rustc --version | cut -d' ' -f2)
  source=$(rustc --print sysroot)/lib/rustlib/src/rust/library
  if [ ! -e "$source/std" ] && ! rustup_did component add rust-src; then
    source=$CARGO_TARGET_DIR/rust-src-$version/usr/src/rustc-$version/library
    if [ ! -e "$source/std" ]; then
      # Debian's releases to come have newer versions than those that are out.
      scripts/debian-packages.sh --alone trixie-backports "${source%/usr/*}" "rust-src=$version*" || return 1
    fi
    # Cargo looks for it in its own folder, which is not ours to write to.
    export __CARGO_TESTS_ONLY_SRC_ROOT
    __CARGO_TESTS_ONLY_SRC_ROOT=$(realpath "$source")
  fi
  std=(-Z build-std=std,panic_abort)
  export RUSTC_BOOTSTRAP=1
}
