from collections.abc import Sequence

class Transfer:
    """The way of the arrays of one call to a GPU and back.

    Parameters
    ----------
    driver : sequence of int
        The addresses of ``cuMemcpyHtoDAsync_v2``, ``cuMemcpyDtoHAsync_v2``, ``cuGraphLaunch`` and
        ``cuStreamSynchronize``.
    stream : int
        The handle of the stream on which everything happens.
    inputs, outputs : sequence of (int, int, int)
        For each: the address in pinned memory, the address on the GPU, the bytes.
    """

    def __init__(
        self,
        driver: Sequence[int],
        stream: int,
        inputs: Sequence[tuple[int, int, int]],
        outputs: Sequence[tuple[int, int, int]],
    ) -> None: ...
    def upload(self, arrays: Sequence[int]) -> int:
        """Copy arrays, given by address, to the GPU; return CUDA's error, 0 for none.

        An address of 0 says that the pinned memory holds what is meant.
        """

    def download(self, arrays: Sequence[int]) -> int:
        """Copy from the GPU, wait, and copy to arrays; an address of 0 leaves it pinned."""

    def replay(self, inputs: Sequence[int], graph: int, outputs: Sequence[int]) -> int:
        """Upload, launch a CUDA graph by its handle, and download."""
