"""The commands of ``etcdctl`` that the runbooks show, for machines that have only the server.

It speaks to a real etcd through its JSON gateway: ``python -m tests.integration.etcdctl member``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.request
from typing import Any


def call(path: str, body: dict[str, Any]) -> dict[str, Any]:
    """One call to the first member that answers."""
    failures = []
    for endpoint in os.environ["ETCDCTL_ENDPOINTS"].split(","):
        request = urllib.request.Request(
            f"http://{endpoint}/v3/cluster/member/{path}", data=json.dumps(body).encode()
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as response:
                answer: dict[str, Any] = json.load(response)
                return answer
        except OSError as error:
            failures.append(f"{endpoint}: {error}")
    raise SystemExit("\n".join(failures))


def say(line: str) -> None:
    """A line for people."""
    sys.stdout.write(f"{line}\n")


def main() -> None:
    """Runs ``member list``, ``member remove ID`` or ``member add NAME --peer-urls=URL``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("noun", choices=["member"])
    parser.add_argument("verb", choices=["list", "remove", "add"])
    parser.add_argument("what", nargs="?", default="")
    parser.add_argument("--peer-urls")
    told = parser.parse_args()
    if told.verb == "list":
        for member in call("list", {})["members"]:
            state = "started" if member.get("name") else "unstarted"
            clients = ",".join(member.get("clientURLs", []))
            fields = [f"{int(member['ID']):x}", state, member.get("name", "")]
            say(", ".join([*fields, ",".join(member["peerURLs"]), clients, "false"]))
    elif told.verb == "remove":
        answer = call("remove", {"ID": str(int(told.what, 16))})
        cluster = int(answer["header"]["cluster_id"])
        say(f"Member {told.what} removed from cluster {cluster:x}")
    else:
        answer = call("add", {"peerURLs": [told.peer_urls]})
        cluster = int(answer["header"]["cluster_id"])
        say(f"Member {int(answer['member']['ID']):x} added to cluster {cluster:x}")
        say('\nETCD_INITIAL_CLUSTER_STATE="existing"')


if __name__ == "__main__":
    main()
