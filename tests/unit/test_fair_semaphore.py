import threading

from api.realtime.fair_semaphore import FairSemaphore
from tests.support.servers import wait_until


def test_whoever_waits_longest_is_next() -> None:
    turns, order, threads = FairSemaphore(1), [], []

    def take(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        for number in range(20):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            wait_until(lambda: len(turns._waiting) == len(threads))
    for thread in threads:
        thread.join()
    assert order == list(range(20))
    with turns:
        pass


def test_no_more_than_so_many_at_the_same_time() -> None:
    turns, lock, inside, most = FairSemaphore(3), threading.Lock(), 0, 0

    def take() -> None:
        nonlocal inside, most
        for _ in range(100):
            with turns:
                with lock:
                    inside += 1
                    most = max(most, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 <= most <= 3
