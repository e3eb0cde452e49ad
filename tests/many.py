"""Teams of processes for the tests: started with torchrun's environment, without its seconds."""

import os
import socket
import sys
import traceback

import torch

from learning_problem import fork_server, noisy_error, numbers, run

JOIN = 180  # seconds, on a machine that does much else; a team takes two


class Team:
    """`target(*args)` in each of `size` processes; `outcomes()` are what they returned or raised.

    An exception comes back as its text, notes included.
    """

    def __init__(self, target, *args, size=2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        pipes = [fork_server.Pipe(duplex=False) for _ in range(size)]
        self.processes = [
            fork_server.Process(target=_member, args=(rank, size, port, writer, target, args))
            for rank, (_, writer) in enumerate(pipes)
        ]
        for process, (_, writer) in zip(self.processes, pipes, strict=True):
            process.start()
            writer.close()  # so that the end of the process ends the pipe
        self.readers = [reader for reader, _ in pipes]

    def outcomes(self):
        """In the order of the ranks; None for a process that was killed."""
        try:
            return [self._outcome(reader) for reader in self.readers]
        finally:
            for process in self.processes:
                process.kill()
                process.join()

    def _outcome(self, reader):
        assert reader.poll(JOIN), "hangs"
        try:
            return reader.recv()
        except EOFError:
            return None


def _member(rank, size, port, writer, target, args):
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    sys.stdout = sys.stderr
    try:
        writer.send(target(*args))
    except BaseException as error:
        writer.send("".join(traceback.format_exception_only(error)))


def together(target, *args, size=2):
    """What each process returned, or the text of what it raised."""
    return Team(target, *args, size=size).outcomes()


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.05)


NOISY = dict(batch_size=3, loss=noisy_error, optimizer=adam)


def noisy(out=None, steps=6, resume=False):
    """With random numbers in the loss, and batches of which one is a single sample."""
    return numbers(run(out, steps=steps, resume=resume, **NOISY))
