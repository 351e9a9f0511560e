#!/usr/bin/env python3
"""Draws docs/demo.svg, the picture of the README, from a real run of the command.

    cargo build --release -p reveille-cli && docs/picture.py target/release/reveille

Runs the demo and keeps its throw-away server, looks at it by further commands, and stops it. Each command runs in a
terminal of 131 columns, and the picture shows what the terminal shows at the end.
"""

import fcntl
import html
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios

COLUMNS = 131
FONT_SIZE = 13
WIDTH, HEIGHT = 7.82, 18
MARGIN = 18
COLOURS = {"1": "font-weight:bold", "2": "opacity:0.65", "31": "fill:#ff8a80", "32": "fill:#a5d6a7",
           "33": "fill:#ffe082", "36": "fill:#80deea"}


def run(program, arguments, url):
    """Runs a command in a terminal, and returns what it wrote."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", DATABASE_URL=url)
        os.execv(program, [program, *arguments])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:
            part = b""
        if not part:
            break
        written += part
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != 0:
        sys.exit(f"{arguments} failed: {written.decode()}")
    return written.decode().replace("\r\n", "\n")


def drawn(line):
    """Returns a line as SVG: the text after the last return to the line's start, with its colours."""
    line = re.sub(r"\x1b\[[0-9;]*[A-KST]", "", line.rstrip("\r").split("\r")[-1])
    style, out = "", ""
    for part in re.split(r"(\x1b\[[0-9;]*m)", line):
        if part.startswith("\x1b"):
            style = ";".join(COLOURS[code] for code in part[2:-1].split(";") if code in COLOURS)
        elif part:
            text = html.escape(part)
            out += f'<tspan style="{style}">{text}</tspan>' if style else text
    return out


def main():
    program = os.path.abspath(sys.argv[1])
    demo = run(program, ["demo", "--keep"], "")
    url = re.search(r"the server goes on: (\S+)", demo).group(1)
    stop = re.search(r"stop it with: (.*)", demo).group(1)
    try:
        seen = demo.split("\nTo see more")[0]
        lines = ['<tspan class="prompt">$</tspan> cargo reveille demo', *map(drawn, seen.split("\n"))]
        for arguments in (["status"], ["dead"]):
            lines.append(f'<tspan class="prompt">$</tspan> reveille {shlex.join(arguments)}')
            lines += [*map(drawn, run(program, arguments, url).rstrip("\n").split("\n")), ""]
    finally:
        subprocess.run(stop, shell=True, check=True, stdout=subprocess.DEVNULL)
    height = len(lines) * HEIGHT + 3 * MARGIN
    width = COLUMNS * WIDTH + 2 * MARGIN
    rows = "\n".join(
        f'<text x="{MARGIN}" y="{3 * MARGIN + n * HEIGHT}" xml:space="preserve">{line}</text>'
        for n, line in enumerate(lines) if line)
    picture = f"""<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}" role="img">
<title>A terminal: the demo of Reveille, and a look at its queues and dead jobs</title>
<style>text {{ font: {FONT_SIZE}px ui-monospace, Menlo, Consolas, monospace; fill: #e0e0e0 }}
.prompt {{ fill: #80deea; font-weight: bold }}</style>
<rect width="100%" height="100%" rx="8" fill="#1e2227"/>
<circle cx="20" cy="18" r="6" fill="#ff6058"/><circle cx="40" cy="18" r="6" fill="#ffbd2e"/>
<circle cx="60" cy="18" r="6" fill="#28ca42"/>
{rows}
</svg>
"""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo.svg"), "w") as file:
        file.write(picture)


main()
