import unittest

from durations import describe, parse


class Writing(unittest.TestCase):
    def test_round_trip(self):
        for seconds in (0, 1, 59, 60, 5_400, 86_399, 86_400, 187_200):
            with self.subTest(seconds):
                self.assertEqual(parse(describe(seconds)), seconds)

    def test_a_negative_duration_is_refused(self):
        with self.assertRaises(ValueError):
            describe(-1)
