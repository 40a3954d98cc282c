"""Processes that were started by hand meet before JAX's own service starts, which ends a process where one is missing.

Process 0 listens; each other one says which it is, as "1/4", and waits for "go". Two of one number are both refused.
"""

import socket
import sys
import time

from jaxprefix.errors import InputError


def wait_for_others(port: int, processes: int, seconds: float) -> None:
    """Process 0: until all the others have said who they are. InputError where one does not, or two are the same."""
    end, here = time.monotonic() + seconds, dict[int, socket.socket]()
    try:
        server = socket.create_server(("", port))
    except (OSError, OverflowError) as error:
        raise InputError(f"port {port} cannot be listened to ({error}); give another one to all processes") from None
    with server:
        try:
            while len(here) < processes - 1:
                missing = ", ".join(str(each) for each in range(1, processes) if each not in here)
                _say(f"waiting for process {missing} of {processes}, {max(end - time.monotonic(), 0):.0f} s at most")
                number, caller = _next(server, processes, end, missing)
                if number in here:
                    why = f"two processes call themselves {number}/{processes}; give each a number of its own"
                    with caller:
                        for each in (caller, *here.values()):
                            _answer(each, why)
                    raise InputError(why)
                here[number] = caller
            for each in here.values():
                _answer(each, "go")
        finally:
            for each in here.values():
                each.close()


def _next(server: socket.socket, processes: int, end: float, missing: str) -> tuple[int, socket.socket]:
    """The next process of this run; others are told what they did wrong, and what says nothing is passed over."""
    while True:
        server.settimeout(max(end - time.monotonic(), 0.001))
        try:
            caller, _ = server.accept()
        except TimeoutError:
            raise InputError(f"process {missing} did not come; start all {processes} with this address") from None
        caller.settimeout(5)
        said = _line(caller)
        number, _, total = said.partition("/")
        if number.isdecimal() and total == str(processes) and 0 < int(number) < processes:
            return int(number), caller
        _answer(caller, f"process 0 was started as 0/{processes}, this one as {said}")
        caller.close()


def wait_for_first(address: str, process: int, processes: int, seconds: float) -> None:
    """Another process: until process 0 says that all are there. InputError where it says other things, or nothing."""
    host, _, port = address.rpartition(":")
    end, said, why = time.monotonic() + seconds, False, "no time was left"
    while (left := end - time.monotonic()) > 0:
        why = "it went away"
        try:
            with socket.create_connection((host, int(port)), timeout=min(left, 5)) as caller:
                _answer(caller, f"{process}/{processes}")
                caller.settimeout(max(end - time.monotonic(), 0.001))
                answer = _line(caller)
            if answer == "go":
                return
            if answer:
                raise InputError(answer)
        except (OSError, OverflowError) as error:
            why = str(error)
        if not said:
            _say(f"waiting for process 0 at {address}, {seconds:.0f} s at most")
        said = True
        time.sleep(0.2)
    raise InputError(f"nobody answered at {address} for {seconds:.0f} s ({why}); start process 0 there too")


def _line(caller: socket.socket) -> str:
    """What it says up to the end of the line; nothing where it is silent or gone."""
    try:
        with caller.makefile("r", encoding="utf-8", errors="replace") as file:
            return file.readline(200).strip()
    except OSError:
        return ""


def _answer(caller: socket.socket, line: str) -> None:
    try:
        caller.sendall(f"{line}\n".encode())
    except OSError:  # it has gone; who waits for it finds out
        return


def _say(line: str) -> None:
    print(line, file=sys.stderr)
