"""``holdfast cluster``: how the brokers are, and whether their replicas agree."""

from __future__ import annotations

from typing import Annotated

import typer

from holdfast.cli.options import DEFAULT_ENDPOINTS, Endpoints, Json, Timeout, split_endpoints

app = typer.Typer(help="How the brokers are, and whether their replicas agree.", no_args_is_help=True)

_VERDICTS = {
    "equal": "equal",
    "differ": "they DIFFER",
    "busy": "equal where they stand still; some are being written to, so ask again",
}


@app.command("status")
def status(endpoints: Endpoints = DEFAULT_ENDPOINTS, timeout: Timeout = 3.0, as_json: Json = False) -> None:
    """Show every broker: role, term, log positions, lag, space. Fails when there is no leader."""
    from holdfast.cli.output import human_bytes, print_json, print_table
    from holdfast.cli.overview import gather_status
    from holdfast.errors import NoLeaderError

    view = gather_status(split_endpoints(endpoints), timeout)
    if as_json:
        print_json(view.as_dict())
    else:
        rows: list[list[object]] = []
        for node in view.nodes:
            answer = node.status
            if answer is None:
                rows.append([node.node_id, node.address, f"unreachable: {node.problem}", *[""] * 6])
                continue
            # Without a leader nobody takes writes; only with one is it the lack of room.
            refused = "no: full" if answer.leader_id else "no: no leader"
            writes = "yes" if answer.accepting_writes else refused
            space = f"{human_bytes(answer.data_bytes)} of {human_bytes(answer.quota_bytes)}"
            rows.append([node.node_id, node.address, node.role, answer.term, answer.commit_index])
            rows[-1] += [answer.applied_index, "" if node.lag is None else node.lag, space, writes]
        print_table(["NODE", "ADDRESS", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "DATA", "WRITES"], rows)
    if view.leader_id is None:
        joining = [node.node_id for node in view.nodes if node.role == "joining"]
        hint = f"; {', '.join(joining)} may not vote before all the others have answered" if joining else ""
        raise NoLeaderError(f"no leader is known: is a majority of the brokers running?{hint}")


@app.command("digest")
def digest(
    topic: Annotated[str, typer.Option("--topic", "-t", metavar="TOPIC", help="Only this topic.")] = "",
    endpoints: Endpoints = DEFAULT_ENDPOINTS,
    timeout: Timeout = 10.0,
    as_json: Json = False,
) -> None:
    """Compare the replicas, partition by partition, at one position of the log. Fails when they differ."""
    from holdfast.cli.output import print_json, print_table
    from holdfast.cli.overview import gather_digests

    view = gather_digests(split_endpoints(endpoints), topic, timeout)
    if as_json:
        print_json(view.as_dict())
    else:
        print_table(
            ["TOPIC", "PARTITION", "END", "DIGEST", "REPLICAS"],
            [[row.topic, row.partition, row.end_offset, row.shown(), row.verdict] for row in view.rows],
        )
        print(f"{len(view.nodes)} replicas ({', '.join(view.nodes)}): {_VERDICTS[view.verdict]}")
    if view.verdict == "differ":
        raise typer.Exit(1)
