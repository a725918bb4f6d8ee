//! Exact sums: integers only, rounded once.

use wardian_protocol::NanoUsd;

use crate::table::{Factors, Rates};

/// Attodollars (10⁻¹⁸ USD) in a pico-dollar.
///
/// Rates are whole pico-dollars a token; each of the three factors (geography, speed, batch) is in hundredths, so a
/// millionth of a pico-dollar holds every product exactly.
const ATTO_PER_PICO: u128 = 1_000_000;

/// Attodollars in a nano-dollar.
const ATTO_PER_NANO: u128 = 1_000_000_000;

/// A sum of money in the making. It stops at the largest amount instead of wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount(u128);

/// Tokens by price class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) cache_write_5m: u64,
    pub(crate) cache_write_1h: u64,
    pub(crate) cache_read: u64,
}

impl Amount {
    /// What the tokens cost.
    pub(crate) fn of(tokens: &Tokens, rates: &Rates, factors: Factors) -> Self {
        let classes = [
            (tokens.input, rates.input),
            (tokens.output, rates.output),
            (tokens.cache_write_5m, rates.cache_write_5m),
            (tokens.cache_write_1h, rates.cache_write_1h),
            (tokens.cache_read, rates.cache_read),
        ];
        let pico = classes.into_iter().fold(0_u128, |sum, (count, rate)| {
            sum.saturating_add(u128::from(count).saturating_mul(u128::from(rate)))
        });
        let hundredths = [factors.geo, factors.fast, factors.batch];
        Self(hundredths.into_iter().fold(pico, |sum, factor| sum.saturating_mul(u128::from(factor))))
    }

    /// What `count` things of a price in pico-dollars cost, factors apart.
    pub(crate) fn fee(count: u64, pico: u64) -> Self {
        Self(u128::from(count).saturating_mul(u128::from(pico)).saturating_mul(ATTO_PER_PICO))
    }

    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    pub(crate) fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(count)))
    }

    /// The amount in nano-dollars, rounded up: the one rounding there is.
    pub(crate) fn round_up(self) -> NanoUsd {
        NanoUsd(i64::try_from(self.0.div_ceil(ATTO_PER_NANO)).unwrap_or(i64::MAX))
    }

    /// How many times `unit` goes into what `available` leaves after this amount; as often as one likes when `unit` is
    /// nothing.
    pub(crate) fn how_many_more(self, unit: Self, available: NanoUsd) -> u64 {
        let available = u128::try_from(available.0).unwrap_or(0) * ATTO_PER_NANO;
        match available.checked_sub(self.0) {
            None => 0,
            Some(left) => {
                left.checked_div(unit.0).map_or(u64::MAX, |count| u64::try_from(count).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Reads plain decimal text exactly as an integer of 10^-`places`: `("0.125", 6)` is 125000. `None` when it is no
/// such number, has more places, or is too large.
pub(crate) fn read_decimal(text: &str, places: usize) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > places {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly_or_not_at_all() {
        for (text, places, value) in [
            ("0.125", 6, Some(125_000)),
            ("10", 6, Some(10_000_000)),
            ("1.1", 2, Some(110)),
            ("0.000001", 6, Some(1)),
            ("0.0000001", 6, None),
            ("", 6, None),
            (".5", 6, None),
            ("5.", 6, None),
            ("-1", 6, None),
            ("1e3", 6, None),
            ("1.2.3", 6, None),
            ("99999999999999999999", 6, None),
        ] {
            assert_eq!(read_decimal(text, places), value, "{text:?}");
        }
    }

    #[test]
    fn the_one_rounding_is_up() {
        assert_eq!(Amount(0).round_up(), NanoUsd(0));
        assert_eq!(Amount(1).round_up(), NanoUsd(1));
        assert_eq!(Amount(ATTO_PER_NANO).round_up(), NanoUsd(1));
        assert_eq!(Amount(ATTO_PER_NANO + 1).round_up(), NanoUsd(2));
        assert_eq!(Amount(u128::MAX).plus(Amount(5)).times(u64::MAX).round_up(), NanoUsd(i64::MAX));
    }
}
