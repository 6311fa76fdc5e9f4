import threading

from api.realtime.fair_semaphore import FairSemaphore
from tests.support.servers import MAX_WAIT_SECONDS, wait_until


def test_the_thread_that_has_waited_longest_enters_next() -> None:
    semaphore, order, threads = FairSemaphore(1), [], []

    def enter(number: int) -> None:
        with semaphore:
            order.append(number)

    with semaphore:
        for number in range(20):
            threads.append(threading.Thread(target=enter, args=(number,)))
            threads[-1].start()
            wait_until(lambda: len(semaphore._waiting) == len(threads))
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    assert order == list(range(20))
    with semaphore:
        pass


def test_the_semaphore_admits_at_most_its_count_of_threads() -> None:
    semaphore, lock, inside, peak = FairSemaphore(3), threading.Lock(), 0, 0

    def enter() -> None:
        nonlocal inside, peak
        for _ in range(100):
            with semaphore:
                with lock:
                    inside += 1
                    peak = max(peak, inside)
                with lock:
                    inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(MAX_WAIT_SECONDS)
    assert 1 <= peak <= 3
