#!/usr/bin/env bash
# Unpacks packages of another Debian release, with all they depend on, into a folder; nothing is installed, and what the machine
# has does not matter. Needs apt and dpkg, and a Debian mirror among the machine's own apt sources. Usage:
#   debian-packages.sh [--alone | --source] RELEASE FOLDER PACKAGE[=VERSION]...
# --alone leaves out what the packages depend on; --source fetches the packages' sources, as archives; a VERSION may have wildcards.
set -euo pipefail

say() { echo "debian-packages: $*" >&2; }

alone=false source=false
case ${1-} in
  -h | --help) sed -n '2,5s/^# //p' "$0"; exit 0 ;;
  --alone) alone=true; shift ;;
  --source) source=true; shift ;;
esac
if [ $# -lt 3 ]; then
  say "give a release, a folder and packages (--help)"
  exit 2
fi
release=$1 folder=$2
shift 2

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  say "needs apt-get and dpkg-deb, which this system does not have"
  exit 1
fi
sources() { apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 2>/dev/null; }
mirror=$(sources | awk '$3 == "main" && $2 ~ /^(bookworm|trixie|forky|sid|stable|testing|unstable)$/ { print $1; exit }')
if [ -z "$mirror" ]; then
  say "no Debian mirror is among this machine's apt sources"
  exit 1
fi
for key in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
  [ ! -e "$key" ] || break
done

# An apt of its own, which knows of no installed package.
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root"/{etc/apt.conf.d,etc/preferences.d,state/lists/partial,cache/archives/partial}
: >"$root/status"
architecture=$(dpkg --print-architecture)
for suite in "$release" "${release%-backports}"; do
  echo "deb [arch=$architecture signed-by=$key] $mirror $suite main"
  if $source; then echo "deb-src [signed-by=$key] $mirror $suite main"; fi
done | sort -u >"$root/sources.list"
cat >"$root/conf" <<CONF
Dir::Etc "$root/etc";
Dir::Etc::sourcelist "$root/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$root/state";
Dir::State::status "$root/status";
Dir::Cache "$root/cache";
APT::Architecture "$architecture";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Debug::NoLocking "true";
Acquire::Languages "none";
CONF
# What the machine's own apt goes through.
eval "$(apt-config shell proxy Acquire::http::Proxy)"
if [ -n "${proxy:-}" ]; then
  export http_proxy=$proxy
fi
export APT_CONFIG=$root/conf

log=$root/log
fetch() {
  apt-get -q update || return 1
  if $source; then
    (cd "$root/cache/archives" && apt-get -q source --download-only "$@")
  elif $alone; then
    (cd "$root/cache/archives" && apt-get -q download -t "$release" "$@")
  else
    apt-get -qy install --download-only -t "$release" "$@"
  fi
}
if ! fetch "$@" >"$log" 2>&1; then
  tail -n 5 "$log" >&2
  say "the packages could not be fetched from $release: $*"
  exit 1
fi
mkdir -p "$folder"
if $source; then
  rm -rf "$root/cache/archives/partial"
  mv "$root"/cache/archives/* "$folder"
  exit 0
fi
for package in "$root"/cache/archives/*.deb; do
  dpkg-deb -x "$package" "$folder"
done
