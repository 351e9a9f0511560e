#!/usr/bin/env python3
"""A worker in Python, run by the command:

    reveille work --queue mail=4 --exec 'python3 examples/send_mail.py'
    reveille enqueue send_mail '{"to": "ada@example.org"}' --queue mail

The payload comes on standard input, what else is known of the job in the environment. The exit status tells how it
went, the end of standard error why it failed.
"""

import json
import os
import sys

# Make this file, and the mail server counts as down.
MAIL_IS_DOWN = os.environ.get("MAIL_IS_DOWN", "/tmp/mail-is-down")
TRY_LATER = 75  # os.EX_TEMPFAIL: waits, and counts as no failure
PERMANENT = 65  # os.EX_DATAERR: no further attempt can help


def main() -> int:
    job = json.load(sys.stdin)
    to = job.get("to", "")
    if "@" not in to:
        print(f"{to!r} is no address", file=sys.stderr)
        return PERMANENT
    if os.path.exists(MAIL_IS_DOWN):
        print("the mail server is down", file=sys.stderr)
        return TRY_LATER
    print(f"job {os.environ['REVEILLE_JOB_ID']}, attempt {os.environ['REVEILLE_JOB_ATTEMPT']}: mail to {to}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
