"""A program that runs the client of msl-network 1.0.0: a line of Python in, a line of JSON out.

Run as ``reference_client.py CONNECT_ARGUMENTS``, as JSON; ``-`` says that the client is yet to be connected.
"""

import json
import sys
import threading

from msl.network import LinkedClient, connect


def main():
    names = {"connect": connect, "LinkedClient": LinkedClient, "threading": threading}
    names["arguments"] = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            code = json.loads(line)
            try:
                answer = {"value": eval(compile(code, "<test>", "eval"), names)}
            except SyntaxError:
                exec(compile(code, "<test>", "exec"), names)
                answer = {"value": None}
        except Exception as error:
            answer = {"error": type(error).__name__, "text": str(error)}
        print(json.dumps(answer, default=repr), file=answers, flush=True)


if __name__ == "__main__":
    main()
