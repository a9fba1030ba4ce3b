"""What goes wrong around pw.x: a shell text that starts it, counts its starts, and breaks those that it is told to.

The moments of kills and stops are told by what the output has reached, so that they do not depend on the speed of the
machine. For a stop by the clock pw.x is held at that moment until its time is over.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

COUNT: Final = "CAMPAIGN_COUNT"
"""Variable with the file that counts the starts of pw.x in a case."""
WORKER: Final = "CAMPAIGN_WORKER"
"""Variable with the number of the process that drives pw.x; where it is not set, that process outlives its node."""

_HEAD: Final = f"""
n=$(($(cat "${COUNT}" 2>/dev/null || echo 0) + 1)); echo $n > "${COUNT}"
running() {{ [ -d /proc/$p ] && ! grep -q '^State:.*Z' /proc/$p/status 2>/dev/null; }}
reached() {{
  while running; do
    [ "$(grep -c -e "$1" pw.out 2>/dev/null || true)" -ge "$2" ] && return 0
    sleep 0.01
  done
  return 1
}}
t0=$(date +%s%N)
"""
_SLACK_s: Final = 0.4


def script(name: str, faults: Iterable[Mapping[str, Any]]) -> str:
    """Return the text for ``sh -c``, which knows pw.x as "$@".

    Args:
        name: Name of the case, which seeds what is random.
        faults: Each with its ``kind``, the ``launches`` of pw.x that it is for (by default the first, ``all`` for
            all), and what the kind needs.
    """
    places: tuple[list[str], list[str], list[str]] = ([], [], [])
    for fault in faults:
        parts = _KINDS[fault["kind"]](fault, random.Random(name))
        for place, text in zip(places, parts, strict=True):
            if text:
                place.append(_only(fault.get("launches", [1]), text))
    before, during, after = places
    return "\n".join([_HEAD, *before, '"$@" &', "p=$!", *during, "wait $p; r=$?", *after, "exit $r"])


def broken_launches(faults: Iterable[Mapping[str, Any]]) -> dict[int, int]:
    """Return what a scheduler would have said of each launch: exit codes of the peer's scheduler plugin, by launch."""
    said: dict[int, int] = {}
    for fault in faults:
        launches = fault.get("launches", [1])
        if "scheduler" in fault:
            said |= dict.fromkeys(range(1, 50) if launches == "all" else launches, int(fault["scheduler"]))
    return said


def _only(launches: str | list[int], text: str) -> str:
    if launches == "all":
        return text
    return f"case $n in {'|'.join(map(str, launches))}) {text} ;; esac"


def _moment(fault: Mapping[str, Any], chance: random.Random) -> str:
    """Return the condition that the output has reached a moment, by default a random iteration."""
    low, high = fault.get("between", (1, 25))
    count = fault.get("count") or chance.randint(low, high)
    return f'reached "{fault.get("mark", "iteration #")}" {count}'


def _kill(fault: Mapping[str, Any], chance: random.Random) -> tuple[str, str, str]:
    return "", f"if {_moment(fault, chance)}; then kill -{fault.get('signal', 'KILL')} $p; fi", ""


def _node(fault: Mapping[str, Any], chance: random.Random) -> tuple[str, str, str]:
    """Everything on the node dies, the worker too."""
    return "", f"if {_moment(fault, chance)}; then kill -KILL ${{{WORKER}:-$p}} $p; fi", ""


def _walltime(fault: Mapping[str, Any], chance: random.Random) -> tuple[str, str, str]:
    seconds = int(fault.get("max_seconds", 4))
    begin = f"sed -i -e /max_seconds/d -e 's/^&CONTROL/\\&CONTROL\\n  max_seconds = {seconds}/' pw.in"
    left = f"$(( {seconds * 1000 + int(1000 * _SLACK_s)} - ($(date +%s%N) - t0) / 1000000 ))"
    wait = f"w={left}; [ $w -gt 0 ] && sleep $((w / 1000)).$(printf %03d $((w % 1000)))"
    return begin, f"if {_moment(fault, chance)}; then kill -STOP $p; {wait}; kill -CONT $p; fi", ""


def _exit_file(fault: Mapping[str, Any], _chance: random.Random) -> tuple[str, str, str]:
    where = fault.get("where", ".")
    return f"mkdir -p {where}; touch {where}/pwscf.EXIT", "", ""


def _dead(fault: Mapping[str, Any], _chance: random.Random) -> tuple[str, str, str]:
    said = fault.get("says", "")
    return f"echo '{said}' >&2; exit {fault.get('status', 1)}", "", ""


_DAMAGES: Final = {"cut": "truncate -s -100", "empty": "truncate -s 0", "remove": "rm -f", "garbage": "cp pw.in"}


def _damage(fault: Mapping[str, Any], _chance: random.Random) -> tuple[str, str, str]:
    """A file of the outdir breaks after the run has ended, or before it begins."""
    text = f'for f in {fault["file"]}; do [ -e "$f" ] && {_DAMAGES[fault["how"]]} "$f"; done'
    return (text, "", "") if fault.get("when") == "before" else ("", "", text)


_EACH: Final = 'for f in ../pseudo/*; do {} "$f" > x.tmp; mv x.tmp "$f"; done'
_PSEUDOS: Final = {
    "cut": _EACH.format("head -c 700"),
    "remove": "rm -f ../pseudo/*",
    "swap": _EACH.format('sed \'/^ *element=/s/"[^"]*"/"C"/\''),
    "functional": "f=$(ls ../pseudo/* | head -1); sed '/^ *functional=/s/PBE/PZ/' $f > x.tmp; mv x.tmp $f",
}


def _pseudo(fault: Mapping[str, Any], _chance: random.Random) -> tuple[str, str, str]:
    return _PSEUDOS[fault["how"]], "", ""


def _memory(fault: Mapping[str, Any], _chance: random.Random) -> tuple[str, str, str]:
    return f"ulimit -v {int(fault['kB'])}", "", ""


_KINDS: Final[dict[str, Callable[[Mapping[str, Any], random.Random], tuple[str, str, str]]]] = {
    "kill": _kill,
    "node": _node,
    "walltime": _walltime,
    "exit_file": _exit_file,
    "dead": _dead,
    "damage": _damage,
    "pseudo": _pseudo,
    "memory": _memory,
}
"""Each kind of fault returns what the shell does before pw.x starts, while it runs, and after it has ended."""
