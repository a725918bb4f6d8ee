import unittest

from durations import DurationError, parse


class Reading(unittest.TestCase):
    def test_one_unit(self):
        self.assertEqual(parse("45s"), 45)
        self.assertEqual(parse("90m"), 5_400)

    def test_several_units(self):
        self.assertEqual(parse("1h30m"), 5_400)
        self.assertEqual(parse("2d 4h"), 187_200)

    def test_a_unit_may_not_stand_twice(self):
        with self.assertRaises(DurationError):
            parse("1h2h")

    def test_the_larger_unit_comes_first(self):
        with self.assertRaises(DurationError):
            parse("30m1h")

    def test_what_is_no_duration(self):
        for text in ("", "  ", "h", "1x", "1h!", "-5s"):
            with self.subTest(text), self.assertRaises(DurationError):
                parse(text)
