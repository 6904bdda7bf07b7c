#!/usr/bin/env python3
"""Serves folders with byte ranges, for the page and its test: server.py [--port N] [--results] FOLDER [NAME=FOLDER]...

The first folder is the root, others lie under their names. Prints the address. With --results each body that is POSTed to /result
becomes a line of the standard output.
"""

import argparse
import mimetypes
import os
import re
import shutil
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("text/javascript", ".js")


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folders: dict = {}

    def translate_path(self, path):
        root, self.directory = self.directory, self.folders[""]
        first = path.lstrip("/").split("/", 1)
        if len(first) == 2 and first[0] in self.folders:
            self.directory, path = self.folders[first[0]], "/" + first[1]
        try:
            return super().translate_path(path)
        finally:
            self.directory = root

    def send_head(self):
        path = self.translate_path(self.path)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not os.path.isfile(path):
            return super().send_head()
        size = os.path.getsize(path)
        first, last = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
        if first > last:
            self.send_error(416)
            return None
        file = open(path, "rb")
        file.seek(first)
        self.left = last + 1 - first
        self.send_response(206)
        self.send_header("Content-Type", self.guess_type(path))
        self.send_header("Content-Length", str(self.left))
        self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("ETag", f'"{size}-{os.stat(path).st_mtime_ns}"')
        self.end_headers()
        return file

    def copyfile(self, source, outputfile):
        left, self.left = getattr(self, "left", None), None
        if left is None:
            return shutil.copyfileobj(source, outputfile)
        while left > 0 and (chunk := source.read(min(left, 1 << 20))):
            outputfile.write(chunk)
            left -= len(chunk)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(204 if self.path == "/result" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()
        if self.path == "/result":
            print(body.decode(), flush=True)

    def log_message(self, *_):
        pass


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--results", action="store_true")
    parser.add_argument("folders", nargs="+")
    options = parser.parse_args()
    if not options.results:
        Handler.do_POST = None
    Handler.folders = {"": os.path.abspath(options.folders[0])}
    for folder in options.folders[1:]:
        name, _, path = folder.partition("=")
        Handler.folders[name] = os.path.abspath(path)
    server = ThreadingHTTPServer(("127.0.0.1", options.port), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
