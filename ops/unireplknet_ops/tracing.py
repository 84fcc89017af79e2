"""What torch.compile takes for a constant while it traces."""

from collections.abc import Callable


def constant_in_graphs(function: Callable) -> Callable:
    """Let the compiler run a function while it traces, and keep the result in the graph.

    `torch.compiler.assume_constant_result` does the same, but importing the compiler takes seconds, also
    for those who compile nothing.
    """
    function._dynamo_marked_constant = True
    return function
