"""The reserve is one descriptor, and is there again as soon as one is free."""

from __future__ import annotations

import os
import resource

from supervisor.descriptor_reserve import DescriptorReserve


def test_the_reserve_frees_one_descriptor_and_comes_back_when_it_can() -> None:
    """Spent twice it frees nothing more; without a free descriptor it is not there."""
    reserve = DescriptorReserve()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        while len(fillers) < 256:
            try:
                fillers.append(os.open("/dev/null", os.O_RDONLY))
            except OSError:
                break
        assert reserve.refill()
        reserve.spend()
        reserve.spend()
        fillers.append(os.open("/dev/null", os.O_RDONLY))
        assert not reserve.refill()
        os.close(fillers.pop())
        assert reserve.refill()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in fillers:
            os.close(number)
        reserve.spend()
