"""augment.py: what comes out is where it should be, and the same seed gives the same bits."""

import numpy as np
import pytest
from scipy import ndimage

import layers
from layerwise import augment
from layerwise.augment import Affine, Augmentation, Compose, Crop, Flip, Shift

N, H, W, C = 7, 5, 6, 3
ALL = {
    "Affine": Affine(rotation=20, shift=1.5, scale=0.2, shear=10),
    "Shift": Shift(2),
    "Crop": Crop((4, 3), padding=1),
    "Flip": Flip(),
    "Compose": Compose([Flip(), Shift(1), Affine(shift=1)]),
}
every = pytest.mark.parametrize("change", ALL.values(), ids=ALL)


def images(n=N, shape=(H, W, C), dtype=np.float32):
    return np.random.default_rng(1).uniform(0.1, 1, (n, *shape)).astype(dtype)


@every
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(change):
    x = images()
    y = change(x, np.random.default_rng(0))
    np.testing.assert_array_equal(change(x, 0), y)
    assert (change(x, 1) != y).any()
    assert (change(x) != change(x)).any()


@every
def test_x_is_left_as_it_is_and_y_is_an_array_of_its_own(change):
    x = images()
    x.flags.writeable = False
    y = change(x, 0)
    assert y.dtype == np.float32
    assert y.flags.c_contiguous
    assert not np.shares_memory(x, y)


@every
def test_every_image_is_changed_in_its_own_way(change):
    x = np.repeat(images(1), 64, axis=0)
    assert len({image.tobytes() for image in change(x, 0)}) > 1


@every
@pytest.mark.parametrize("n", [0, 1])
def test_no_images_and_one(change, n):
    assert change(images(n), 0).shape[0] == n


@pytest.mark.parametrize("change", list(ALL.values())[:4], ids=list(ALL)[:4])
def test_what_is_no_batch_of_images_is_refused(change):
    name = type(change).__name__
    with pytest.raises(
        ValueError, match=rf"{name} takes images of shape \(N, height, width, channels\), got .*\(7, 30\)"
    ):
        change(np.ones((7, 30)))
    with pytest.raises(TypeError, match=f"{name} takes images of numbers, got an array of <U1"):
        change([[[["a"]]]])


def test_flip():
    x = images(200)
    y = Flip()(x, 0)
    flipped = np.array([not np.array_equal(a, b) for a, b in zip(x, y, strict=True)])
    np.testing.assert_array_equal(y[flipped], x[flipped][:, :, ::-1])
    assert 70 < flipped.sum() < 130
    np.testing.assert_array_equal(Flip(1)(x, 0), x[:, :, ::-1])
    np.testing.assert_array_equal(Flip(0)(x, 0), x)


def test_every_crop_is_a_part_of_the_padded_image_and_all_parts_come():
    x, fill = images(300, (4, 3, 2)), -1.0
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=fill)
    places = [(top, left) for top in range(4) for left in range(2)]  # of 3 by 4 in 6 by 5
    found = set()
    for image, whole in zip(Crop((3, 4), padding=1, fill=fill)(x, 0), padded, strict=True):
        equal = [place for place in places if np.array_equal(whole[place[0] :, place[1] :][:3, :4], image)]
        assert equal
        found.update(equal)
    assert found == set(places)


def test_shift_moves_whole_pixels_up_to_so_many():
    x = np.zeros((400, 7, 9, 1), np.float32)
    x[:, 3, 4] = 1
    y = Shift(2)(x, 0)
    assert y.shape == x.shape
    assert y.sum() == 400
    _, rows, columns, _ = np.nonzero(y)
    assert {*(rows - 3)} == {*(columns - 4)} == {-2, -1, 0, 1, 2}


def test_a_crop_keeps_the_type_of_whole_numbers():
    assert Crop(2)(np.ones((1, 3, 3, 1), np.uint8)).dtype == np.uint8


def test_warp_is_that_of_scipy():
    rng = np.random.default_rng(0)
    x = images(dtype=np.float64)
    inverse = np.eye(2) + rng.normal(0, 0.5, (N, 2, 2))
    shift = rng.normal(0, 2, (N, 2))
    middle = np.array([H - 1, W - 1]) / 2
    y = augment.warp(x, inverse, shift, fill=0.3)
    for n in range(N):
        start = middle - inverse[n] @ (middle + shift[n])
        for c in range(C):
            expected = ndimage.affine_transform(
                x[n, :, :, c], inverse[n], start, order=1, mode="grid-constant", cval=0.3
            )
            np.testing.assert_allclose(y[n, :, :, c], expected, rtol=0, atol=1e-12)


def test_affine_of_nothing_changes_nothing():
    for dtype in (np.float32, np.float64):
        x = images(dtype=dtype)
        np.testing.assert_array_equal(Affine()(x, 0), x)
    assert Affine(shift=1)(np.ones((1, 3, 3, 1), np.uint8), 0).dtype == np.float32


def blob(n, row=8.0, column=8.0, size=17):
    """A spot with its middle there."""
    r, c = np.indices((size, size))
    return np.repeat(np.exp(-((r - row) ** 2 + (c - column) ** 2) / 4)[None, ..., None], n, axis=0)


def middles(y):
    """(row, column) of the centre of mass of each image, from the middle of the image."""
    r, c = np.indices(y.shape[1:3]) - (y.shape[1] - 1) / 2
    mass = y[..., 0].sum((1, 2))
    return np.stack([(y[..., 0] * axis).sum((1, 2)) / mass for axis in (r, c)], 1)


def test_rotation_turns_by_up_to_so_many_degrees_and_keeps_the_distance():
    places = middles(Affine(rotation=30)(blob(500, column=12), 0))
    np.testing.assert_allclose(np.hypot(*places.T), 4, atol=0.03)
    angles = np.rad2deg(np.arctan2(*places.T))
    assert -30.5 < angles.min() < -28
    assert 28 < angles.max() < 30.5


def test_shift_of_an_affine_map_is_in_pixels():
    places = middles(Affine(shift=2)(blob(500), 0))
    assert np.abs(places).max() == pytest.approx(2, abs=0.05)
    assert np.abs(places.mean(0)).max() < 0.15


def test_scale_stretches_by_a_factor_and_shear_slants():
    distance = np.hypot(*middles(Affine(scale=0.25)(blob(500, column=11), 0)).T)
    assert distance.min() == pytest.approx(2.25, abs=0.05)
    assert distance.max() == pytest.approx(3.75, abs=0.05)
    places = middles(Affine(shear=20)(blob(500, row=12), 0))  # below the middle: it moves sideways
    np.testing.assert_allclose(places[:, 0], 4, atol=0.05)
    assert np.abs(places[:, 1]).max() == pytest.approx(4 * np.tan(np.deg2rad(20)), abs=0.05)


def test_compose_is_one_after_the_other():
    x = images()
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(Compose([Shift(1), Flip()])(x, 0), Flip()(Shift(1)(x, rng), rng))


BAD = [
    (lambda: Flip(1.5), r"probability is a number in \[0, 1\], got 1.5"),
    (lambda: Shift(0), "pixels is a positive integer, got 0"),
    (lambda: Crop((2, 3, 4)), r"size is an integer, a pair \(height, width\) or None, got \(2, 3, 4\)"),
    (lambda: Crop(0), "size is a positive integer, got 0"),
    (lambda: Crop(2, padding=-1), "padding is a positive integer, got -1"),
    (
        lambda: Crop(2, padding=1, fill=-1)(images(dtype=np.uint8)),
        r"Crop fills with -1.*uint8 can't hold: choose another",
    ),
    (lambda: Shift(1, fill=0.5)(images(dtype=bool)), "Shift fills with 0.5, which images of bool can't hold"),
    (lambda: Flip()(images(shape=(0, 6, 3))), r"Flip takes images that have pixels, got shape \(7, 0, 6, 3\)"),
    (lambda: Affine()(images(shape=(5, 0, 3))), r"Affine takes images that have pixels, got shape \(7, 5, 0, 3\)"),
    (lambda: Crop(9)(images()), r"Crop takes 9 by 9 pixels, more than images of shape \(5, 6, 3\) have.*padding 0"),
    (lambda: Affine(rotation=-1), r"rotation is a number in \[0, inf\), got -1"),
    (lambda: Affine(scale=1), r"scale is a number in \[0, 1\), got 1"),
    (lambda: Compose([Flip]), r"augmentations\[0\] is a callable \(x, rng\) -> x, such as Flip\(\), got <class"),
    (lambda: Compose([3]), r"augmentations\[0\] is a callable"),
    (lambda: augment.batches(images(), np.zeros(6)), r"x has 7 rows and y has shape \(6,\)"),
    (lambda: augment.batches(images(0), np.zeros(0)), r"x is empty, shape \(0, 5, 6, 3\)"),
    (lambda: augment.batches(images(), np.zeros(7), batch_size=0), "batch_size is a positive integer, got 0"),
    (lambda: augment.batches(images(), np.zeros(7), Flip), "is a callable .*such as Flip"),
    (lambda: Augmentation()(images()), r"Augmentation has no change\(self, x, rng\): write it"),
]


@pytest.mark.parametrize(("make", "message"), BAD)
def test_bad_arguments(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_the_repr_makes_the_same():
    told = "Compose(augmentations=[Shift(pixels=2, fill=0.5), Crop(size=(4, 3), padding=1, fill=0.0)])"
    assert repr(Compose([Shift(2, 0.5), Crop((4, 3), padding=1)])) == told
    assert repr(eval(told, vars(augment))) == told
    assert repr(Augmentation()) == "Augmentation()"


# ---- batches ----


def test_batches_go_through_all_rows_anew_each_time():
    x, y = images(10), np.arange(10)
    data = augment.batches(x, y, batch_size=4, seed=0)
    first, second = list(data), list(data)
    assert len(data) == len(first) == 3
    assert [len(rows) for rows, _ in first] == [4, 4, 2]
    orders = [np.concatenate([numbers for _, numbers in epoch]) for epoch in (first, second)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert (orders[0] != orders[1]).any()
    for rows, numbers in first:
        np.testing.assert_array_equal(rows, x[numbers])


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True, [1, 2], float("nan")])
def test_a_seed_that_is_none_is_refused_at_once(seed):
    with pytest.raises(ValueError, match="seed is an integer, 0 or more, or None, got"):
        augment.batches(images(10), np.arange(10), batch_size=4, seed=seed)


def test_batches_with_the_same_seed_give_the_same_bits():
    def epochs(seed):
        data = augment.batches(images(10), np.arange(10), [Flip(), Shift(1)], batch_size=4, seed=seed)
        return [[(x.tobytes(), y.tobytes()) for x, y in data] for _ in range(2)]

    assert epochs(0) == epochs(0)
    assert epochs(0) != epochs(1)
    assert epochs(0)[0] != epochs(0)[1]
    assert epochs(None) != epochs(None)


def test_batches_go_on_from_their_state():
    data = augment.batches(images(10), np.arange(10), Flip(), batch_size=4)
    list(data)
    repeated = augment.batches(images(10), np.arange(10), Flip(), batch_size=4, seed=3)
    repeated.load_state_dict(data.state_dict())
    for (x, y), (other_x, other_y) in zip(data, repeated, strict=True):
        np.testing.assert_array_equal(x, other_x)
        np.testing.assert_array_equal(y, other_y)
    before = repeated.state_dict()
    for bad in (
        {"seed": -1, "epoch": 1},
        {"seed": 0, "epoch": -1},
        {"seed": 0, "epoch": 1.5},
        {"seed": "a", "epoch": 1},
    ):
        with pytest.raises((ValueError, TypeError)):
            repeated.load_state_dict(bad)
    assert repeated.state_dict() == before


def test_batches_train_a_net():
    """A bar that stands or lies, wherever it is moved to; the net sees no image twice."""
    x = np.zeros((2, 8, 8, 1), np.float32)
    x[0, 2:6, 4] = x[1, 4, 2:6] = 1
    data = augment.batches(np.tile(x, (32, 1, 1, 1)), np.tile([0, 1], 32), Shift(2), batch_size=16, seed=0)

    def trained():
        net = layers.Model(
            [layers.Conv2D(4, 3), layers.ReLU(), layers.GlobalMaxPool2D(), layers.Linear(2), layers.Softmax()], seed=0
        )
        return net, net.train(data, epochs=30, metrics="accuracy", verbose=False)

    net, history = trained()
    assert history["accuracy"][-1] == 1
    data.epoch = 0
    assert trained()[1]["loss"] == history["loss"]
    assert net.predict(x).argmax(1).tolist() == [0, 1]
