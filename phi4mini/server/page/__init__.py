"""The chat page: static files, the text they show rendered to safe HTML, and the headers that keep them inert.

Promises: no address but this server's, no build step, no script that is not a file of this folder. It knows no web
framework: `static_files` hands out bytes and headers, and server/app.py puts them on a connection.
"""
