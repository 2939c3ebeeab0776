"""How notifications go to Redis, well and in trouble: of the publisher's notifier, and of both its models.

Whoever changes one removes the ``__pycache__`` of ``simulation``: kernels are compiled with these in them.
"""

from __future__ import annotations

from typing import Final

# Notifications in one exchange: 2 ms of Redis's time, which it gives in 16 kB turns; more when they pile up.
LEAST_IN_EXCHANGE: Final = 1000
MOST_IN_EXCHANGE: Final = 4000
# In trouble and for a second after it, less, and a pause in between. A Redis that was mute does all at once
# what it was sent meanwhile, and so would we what has piled up: both take cores from those who publish.
RECOVERING_IN_EXCHANGE: Final = 250
RECOVERING_FOR: Final = 1.0  # s
RECOVERING_PAUSE: Final = 0.005  # s
# After a failure: five attempts to connect in a row would keep the loop for 3 ms, and be over before a server
# that restarts is back.
RETRY_PAUSE: Final = 0.05  # s
MAX_FAILURES: Final = 5  # in a row; then the circuit breaker opens
OPEN_FOR: Final = 1.5  # s that it is open: live again within two after Redis is
ANNOUNCE_PAUSE: Final = 0.5  # s after an announcement was refused (no permission, …) until it is tried again
