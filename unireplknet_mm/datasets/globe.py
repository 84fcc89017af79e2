"""A synthetic globe: stations on a sphere, their temperature and wind by the hour.

The temperature falls towards the poles, follows the sun of each station, and is moved by waves that travel
around the globe at speeds of their own: who knows what is upstream knows what comes. Noise of each station
remembers the hour before. The wind is fastest where the temperature of the waves changes most.
"""

from collections.abc import Sequence

import numpy as np

WAVES = 12
HOURS_OF_A_CIRCLE = (150, 400)  # in which a wave goes round the globe
NUMBERS = (2, 7)  # of crests on a circle of latitude
QUANTITIES = ('temp', 'wind')


def places_on_a_sphere(stations: int) -> np.ndarray:
    """Latitude and longitude in degrees and height in metres, (D, 3), spread evenly (Fibonacci's lattice)."""
    index = np.arange(stations) + 0.5
    latitude = np.degrees(np.arcsin(1 - 2 * index / stations))
    longitude = (index * 180 * (3 - np.sqrt(5))) % 360 - 180
    height = np.random.default_rng(stations).gamma(1.5, 200, stations)
    return np.stack([latitude, longitude, height], axis=1)


def order_by_tree(places: np.ndarray, tree: Sequence[int]) -> np.ndarray:
    """In which order to put stations so that those of a node, and neighbouring nodes, are near each other.

    Cuts them into parts of equal numbers, by longitude at the first level of the tree, by latitude at the
    next, and so on. How the published files of Corrformer were ordered is not known.

    Args:
        places: (D, 3); D is a multiple of the product of `tree`.

    Returns:
        (D,) indices into `places`.
    """
    groups = [np.arange(len(places))]
    for level, branches in enumerate(tree):
        axis = (1, 0)[level % 2]
        groups = [
            part
            for group in groups
            for part in np.split(group[np.argsort(places[group, axis], kind='stable')], branches)
        ]
    return np.concatenate(groups)


def synthesise_weather(
    places: np.ndarray, hours: np.ndarray, quantity: str, seed: int
) -> np.ndarray:
    """Degrees Celsius ('temp') or metres a second ('wind') at each hour and place.

    Args:
        places: (D, 3), latitude, longitude, height.
        hours: (T,), counted from a midnight in Greenwich.

    Returns:
        (T, D). The same hours have the same values in whatever series, but for the noise.
    """
    latitude, longitude = np.radians(places[:, 0]), np.radians(places[:, 1])
    moved, steepness = _waves(latitude, longitude, hours, np.random.default_rng([seed, 0]))
    noise = _remembering_noise(len(hours), len(places), np.random.default_rng([seed, 1, hours[0]]))
    local_hour = hours[:, None] + places[None, :, 1] / 15
    sun = np.cos(2 * np.pi * (local_hour - 14) / 24)  # warmest at 14 o'clock
    if quantity == 'wind':
        return np.abs(3 + 2 * steepness + 0.8 * sun + 0.5 * noise)
    level = 28 - 45 * np.sin(latitude) ** 2 - 0.0065 * places[:, 2]
    return level + (1 + 5 * np.cos(latitude)) * sun + 4 * moved + 0.5 * noise


def _waves(
    latitude: np.ndarray, longitude: np.ndarray, hours: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The sum of waves and how steep it is eastwards, (T, D) each, of a deviation of about 1."""
    moved = np.zeros((len(hours), len(latitude)))
    steepness = np.zeros_like(moved)
    for _ in range(WAVES):
        number = rng.integers(*NUMBERS)
        speed = 2 * np.pi / rng.uniform(*HOURS_OF_A_CIRCLE)
        centre, width = rng.uniform(-1, 1), rng.uniform(0.4, 0.8)
        phase = number * (longitude - speed * hours[:, None]) + rng.uniform(0, 2 * np.pi)
        envelope = np.exp(-(((latitude - centre) / width) ** 2)) * np.sqrt(6 / WAVES)
        moved += envelope * np.cos(phase)
        steepness -= envelope * np.sin(phase)
    return moved, steepness


def _remembering_noise(rows: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    noise = rng.normal(0, 1, (rows, columns))
    for row in range(1, rows):
        noise[row] = 0.9 * noise[row - 1] + 0.44 * noise[row]
    return noise
