"""The chat page: static files, Markdown rendered to safe HTML, and headers under which nothing else can run.

Promises: the page contacts no address but this server's, needs no build step, and runs no script but the files of this
folder. Only `endpoints` knows HTTP: `static_files` returns bytes and headers, `markdown` returns HTML.
"""
