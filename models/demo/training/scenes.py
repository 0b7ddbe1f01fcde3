"""Captioned pictures drawn by a program: the demo model's training data. No outside data.

usage: scenes.py     (writes scenes.png, 24 examples, and prints their captions)
"""
import math
import random

from PIL import Image, ImageDraw

SIZE = 128
OVERSAMPLING = 3
COLORS = {
    "red": (214, 48, 49), "orange": (240, 140, 40), "yellow": (250, 211, 60), "green": (50, 168, 82),
    "blue": (52, 106, 220), "purple": (140, 70, 190), "pink": (244, 130, 180), "brown": (130, 84, 50),
    "black": (24, 24, 28), "white": (246, 246, 242), "gray": (130, 134, 140), "teal": (30, 160, 160),
}
INK, PAPER = COLORS["black"], COLORS["white"]
SIZES = {"small": 0.26, "": 0.38, "large": 0.54}
PLACES = {"": (0.5, 0.5), "on the left": (0.28, 0.5), "on the right": (0.72, 0.5), "at the top": (0.5, 0.28),
          "at the bottom": (0.5, 0.72)}
RELATIONS = {"above": ((0.5, 0.28), (0.5, 0.73)), "below": ((0.5, 0.73), (0.5, 0.28)),
             "left of": ((0.27, 0.5), (0.74, 0.5)), "right of": ((0.74, 0.5), (0.27, 0.5))}


class Brush:
    """Draws in units of a radius around a centre."""

    def __init__(self, canvas, cx, cy, radius, color, background):
        self.canvas, self.cx, self.cy, self.radius = canvas, cx, cy, radius
        self.color, self.background = color, background

    def box(self, x0, y0, x1, y1):
        r = self.radius
        return [self.cx + x0 * r, self.cy + y0 * r, self.cx + x1 * r, self.cy + y1 * r]

    def ellipse(self, x0, y0, x1, y1, color=None):
        self.canvas.ellipse(self.box(x0, y0, x1, y1), fill=color or self.color)

    def disc(self, x, y, q, color=None):
        self.ellipse(x - q, y - q, x + q, y + q, color)

    def rectangle(self, x0, y0, x1, y1, color=None):
        self.canvas.rectangle(self.box(x0, y0, x1, y1), fill=color or self.color)

    def polygon(self, points, color=None, scale=1.0):
        r = self.radius * scale
        self.canvas.polygon([(self.cx + x * r, self.cy + y * r) for x, y in points], fill=color or self.color)


def shade(color, factor):
    return tuple(max(0, min(255, int(value * factor))) for value in color)


def circle(b):
    b.disc(0, 0, 1)


def square(b):
    b.rectangle(-0.88, -0.88, 0.88, 0.88)


def triangle(b):
    b.polygon([(0, -1), (0.95, 0.8), (-0.95, 0.8)])


def star(b):
    corners = [(1 if i % 2 == 0 else 0.42, i * math.pi / 5) for i in range(10)]
    b.polygon([(q * math.sin(a), -q * math.cos(a)) for q, a in corners], scale=1.1)


def heart(b):
    def point(t):
        height = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        return 16 * math.sin(t) ** 3 / 17, -height / 17
    b.polygon([point(i / 60 * 2 * math.pi) for i in range(60)])


def diamond(b):
    b.polygon([(0, -1.1), (0.75, 0), (0, 1.1), (-0.75, 0)])


def cross(b):
    b.rectangle(-0.34, -1, 0.34, 1)
    b.rectangle(-1, -0.34, 1, 0.34)


def ring(b):
    b.disc(0, 0, 1)
    b.disc(0, 0, 0.58, b.background)


def moon(b):
    b.disc(0, 0, 1)
    b.ellipse(-0.35, -1.05, 1.5, 0.8, b.background)


def house(b):
    b.rectangle(-0.75, -0.1, 0.75, 0.9)
    b.polygon([(0, -1), (1, -0.1), (-1, -0.1)], shade(b.color, 0.62))
    b.rectangle(-0.18, 0.35, 0.18, 0.9, b.background)


def tree(b):
    b.rectangle(-0.14, 0.3, 0.14, 1, (120, 78, 46))
    for i, y in enumerate((-1.0, -0.6, -0.2)):
        w = 0.5 + 0.18 * i
        b.polygon([(0, y), (w, y + 0.7), (-w, y + 0.7)])


def flower(b):
    for i in range(6):
        b.disc(math.cos(i * math.pi / 3) * 0.6, math.sin(i * math.pi / 3) * 0.6, 0.38)
    b.disc(0, 0, 0.34, COLORS["yellow"] if b.color != COLORS["yellow"] else COLORS["brown"])


def face(b):
    b.disc(0, 0, 1)
    ink = INK if sum(b.color) > 200 else PAPER
    for side in (-1, 1):
        b.disc(side * 0.36, -0.3, 0.13, ink)
    b.canvas.arc(b.box(-0.55, -0.45, 0.55, 0.6), 25, 155, fill=ink, width=max(2, int(b.radius * 0.13)))


def fish(b):
    b.ellipse(-1, -0.55, 0.6, 0.55)
    b.polygon([(0.4, 0), (1.05, -0.5), (1.05, 0.5)], shade(b.color, 0.75))
    b.disc(-0.62, -0.15, 0.1, PAPER if sum(b.color) < 600 else INK)


SHAPES = {shape.__name__: shape for shape in (circle, square, triangle, star, heart, diamond, cross, ring, moon, house,
                                              tree, flower, face, fish)}


def background(name, sunset):
    """An empty picture and the colour which holes in shapes show."""
    side = SIZE * OVERSAMPLING
    if not sunset:
        return Image.new("RGB", (side, side), COLORS[name]), COLORS[name]
    column = Image.new("RGB", (1, side))
    for y in range(side):
        f = y / side
        column.putpixel((0, y), (int(70 + 185 * f), int(50 + 110 * f), int(130 - 60 * f)))
    return column.resize((side, side)), (200, 120, 90)


class Scene:
    """A picture in the making: background, and a caption that ends in `where`."""

    draws = True

    def __init__(self, rng):
        self.rng = rng
        self.ground = rng.choice(list(COLORS))
        self.color, self.shape = self.other_color(), rng.choice(list(SHAPES))
        sunset = rng.random() < 0.08
        self.where = "at sunset" if sunset else f"on a {self.ground} background"
        if self.draws:
            self.picture, self.hole = background(self.ground, sunset)
            self.canvas = ImageDraw.Draw(self.picture)

    def other_color(self):
        return self.rng.choice([c for c in COLORS if c != self.ground])

    def jitter(self):
        return self.rng.uniform(-0.02, 0.02)

    def draw(self, shape, color, x, y, radius, shrink=1.0):
        if not self.draws:
            return
        side = SIZE * OVERSAMPLING
        cx, cy = (x + self.jitter()) * side, (y + self.jitter()) * side
        radius = radius * side * self.rng.uniform(0.94, 1.06) * shrink
        SHAPES[shape](Brush(self.canvas, cx, cy, radius, COLORS[color], self.hole))

    def one_shape(self):
        rng = self.rng
        size = rng.choice(list(SIZES)) if rng.random() < 0.6 else ""
        place = rng.choice(list(PLACES)) if rng.random() < 0.5 and size != "large" else ""
        self.draw(self.shape, self.color, *PLACES[place], SIZES[size], 0.8)
        article = "a" if rng.random() < 0.9 else "one"
        return " ".join(word for word in (article, size, self.color, self.shape, place, self.where) if word)

    def two_shapes(self):
        color, shape = self.other_color(), self.rng.choice(list(SHAPES))
        relation = self.rng.choice(list(RELATIONS))
        for what, (x, y) in zip(((self.shape, self.color), (shape, color)), RELATIONS[relation]):
            self.draw(*what, x, y, 0.23)
        return f"a {self.color} {self.shape} {relation} a {color} {shape} {self.where}"


class CaptionScene(Scene):
    """Only the caption of a scene; other scenes than `Scene` makes from the same numbers."""

    draws = False


def describe(scene, rng):
    """Compose a scene, drawing it, and say what it shows."""
    caption = scene.one_shape() if rng.random() < 0.6 else scene.two_shapes()
    caption = caption.replace("a orange", "an orange")
    if rng.random() < 0.15:
        caption = rng.choice(["a picture of ", "a drawing of ", "an icon of "]) + caption
    if rng.random() < 0.2:
        caption = caption[0].upper() + caption[1:] + "."
    return caption


def sample(rng):
    """One (caption, picture) pair."""
    scene = Scene(rng)
    caption = describe(scene, rng)
    return caption, scene.picture.resize((SIZE, SIZE), Image.LANCZOS)


def main():
    rng = random.Random(0)
    sheet = Image.new("RGB", (SIZE * 6, SIZE * 4))
    for i in range(24):
        caption, picture = sample(rng)
        print(i, caption)
        sheet.paste(picture, (i % 6 * SIZE, i // 6 * SIZE))
    sheet.save("scenes.png")


if __name__ == "__main__":
    main()
