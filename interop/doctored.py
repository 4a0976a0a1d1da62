"""Traces that were tampered with, each in a way in which a server could be wrong. The proof must object.

Each function takes the lines by member, the acknowledged puts and the verdict on the untouched traces, and returns other lines
and the keys of puts that cannot be believed any more (there may be more objections than these).
"""

import re


class NotApplicable(Exception):
    """There is nothing in the traces on which this could be tried."""


def hexadecimal(data):
    return "".join(f"\\x{byte:02x}" for byte in data)


def copy(lines):
    return {name: list(text) for name, text in lines.items()}


def failing(line):
    return re.sub(r"= 0(?: \(DELAYED\))?$", "= -1 EIO (Input/output error)", line.rstrip("\n"))


def stamp(line):
    return line.split(maxsplit=2)[1]


def with_stamp(line, at):
    thread, _, rest = line.split(maxsplit=2)
    return f"{thread} {at} {rest}"


def log_syncs(verdict):
    """(member, call) for all syncs of all logs."""
    return [(trace.name, call) for trace, log in verdict.logs.items() for call in log.syncs]


def frame_of(log, key, verdict):
    entry = next(iter(verdict.entries[key]))
    return next(frame for frame in log.frames if any(found == entry for found, _ in frame.entries()))


def one_put(acknowledged, verdict):
    """A put in the middle whose answer has a connection for itself, and left in one piece: key, trace and call."""
    candidates = sorted(key for key in acknowledged if key.startswith(b"json"))
    for key in candidates[len(candidates) // 2 :]:
        (trace, call), *more = verdict.answers[acknowledged[key]]
        everywhere = all(verdict.entries[key] <= log.durable.keys() for log in verdict.logs.values())
        if not more and call.began == call.ended and everywhere:
            return key, trace, call
    raise NotApplicable("no put has a simple answer")


def failed_syncs(lines, acknowledged, verdict):
    """Every sync of a log failed."""
    lines = copy(lines)
    for name, call in log_syncs(verdict):
        lines[name][call.ended] = failing(lines[name][call.ended])
    return lines, set(acknowledged)


def failed_syncs_of_two(lines, acknowledged, verdict):
    """Every sync of two members' logs failed."""
    lines = copy(lines)
    for name, call in log_syncs(verdict):
        if name != "n1":
            lines[name][call.ended] = failing(lines[name][call.ended])
    return lines, set(acknowledged)


def syncs_of_another_file(lines, acknowledged, verdict):
    """What was synced was always another file."""
    lines = copy(lines)
    for name, call in log_syncs(verdict):
        lines[name][call.began] = lines[name][call.began].replace(hexadecimal(b"/wal-"), hexadecimal(b"/law-"))
    return lines, set(acknowledged)


def names_not_durable(lines, acknowledged, verdict):
    """The directory was never synced after the log file got its name."""
    lines = copy(lines)
    for trace, log in verdict.logs.items():
        for call in log.directories:
            lines[trace.name][call.ended] = failing(lines[trace.name][call.ended])
    return lines, set(acknowledged)


def early_syncs(lines, acknowledged, verdict):
    """Syncs of two members began before the write of what they should have covered, and ended when they did."""
    lines = copy(lines)
    for trace, log in verdict.logs.items():
        if trace.name == "n1":
            continue
        moved = {}
        for frame in log.frames:
            later = [call for call in log.syncs if call.file() == frame.file and call.began > frame.call.ended]
            if later:
                moved[frame.call.began] = min(later, key=lambda call: call.ended)
        text = lines[trace.name]
        for place in sorted(moved, reverse=True):
            sync, before = moved[place], text[place]
            thread = text[sync.began].split()[0]
            call = f"{sync.name}({sync.arguments}"
            if sync.began != sync.ended:
                text[sync.began] = with_stamp(f"{thread} 0 +++ moved +++", stamp(text[sync.began]))
            # Under a thread of its own, since a thread cannot be in two calls at once.
            text[sync.ended] = f"9{thread} {stamp(text[sync.ended])} <... {sync.name} resumed>) = 0"
            text.insert(place, f"9{thread} {stamp(before)} {call} <unfinished ...>")
    return lines, set()


def early_answer(lines, acknowledged, verdict):
    """One answer left just before its entry was written anywhere."""
    lines = copy(lines)
    key, trace, answer = one_put(acknowledged, verdict)
    written = min(frame_of(log, key, verdict).call.began_at for log in verdict.logs.values())
    text = lines[trace.name]
    line = text.pop(answer.began)
    place = next(k for k, other in enumerate(text) if int(stamp(other).replace(".", "")) >= written)
    text.insert(place, with_stamp(line, stamp(text[place - 1])))
    return lines, {key}


def answer_at_the_same_time(lines, acknowledged, verdict):
    """One answer began in the same nanosecond in which the second member's sync was seen to have ended."""
    lines = copy(lines)
    key, trace, answer = one_put(acknowledged, verdict)
    entry = next(iter(verdict.entries[key]))
    others = {other.name: log.durable[entry].ended_at for other, log in verdict.logs.items() if other is not trace}
    later = answer.began_at - min(others.values())
    for name in others:
        for place, line in enumerate(lines[name]):
            at = int(stamp(line).replace(".", "")) + later
            lines[name][place] = with_stamp(line, f"{at // 10**9}.{at % 10**9:09}")
    return lines, {key}


def no_answer(lines, acknowledged, verdict):
    """The trace does not show one answer, so it cannot say when it left."""
    lines = copy(lines)
    key, trace, answer = one_put(acknowledged, verdict)
    del lines[trace.name][answer.began]
    return lines, {key}


def short_write(lines, acknowledged, verdict):
    """The last sector of one entry's frame was not written, and nobody noticed."""
    lines = copy(lines)
    key, _, _ = one_put(acknowledged, verdict)
    for trace, log in verdict.logs.items():
        call = frame_of(log, key, verdict).call
        line = lines[trace.name][call.ended].rstrip("\n")
        lines[trace.name][call.ended] = line.removesuffix(str(call.result)) + str(call.result - 512)
    return lines, {key}


def another_entry(lines, acknowledged, verdict):
    """Two members wrote another put where one should be."""
    lines = copy(lines)
    key, _, _ = one_put(acknowledged, verdict)
    other = b"json-9" + key[6:]
    for trace, log in verdict.logs.items():
        call = frame_of(log, key, verdict).call
        if trace.name != "n1":
            lines[trace.name][call.began] = lines[trace.name][call.began].replace(hexadecimal(key), hexadecimal(other))
    return lines, {key}


DOCTORED = [
    failed_syncs,
    failed_syncs_of_two,
    syncs_of_another_file,
    names_not_durable,
    early_syncs,
    early_answer,
    answer_at_the_same_time,
    no_answer,
    short_write,
    another_entry,
]
