"""A web server on 127.0.0.1 that serves one file, with the faults that a test asks for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Site:
    """What is served and what was asked; change the attributes while it runs."""

    def __init__(self, content: bytes) -> None:
        self.contents = {"/file.zip": content}
        self.ranges = True  # False: ignores Range and sends everything
        self.cut_after: int | None = None  # break off the next answer after so many bytes
        self.asked: list[str | None] = []  # the Range header of each request
        self.address = ""

    def url(self, name: str = "file.zip") -> str:
        return f"{self.address}/{name}"


@contextmanager
def serve(content: bytes = b"") -> Iterator[Site]:
    site = Site(content)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            site.asked.append(wanted)
            content = site.contents.get(self.path)
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and site.ranges else 0
            if start >= len(content) > 0 and start:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body, cut = content[start:], site.cut_after
            site.cut_after = None
            self.wfile.write(body[:cut])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
