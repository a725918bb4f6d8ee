//! Money: integer nano-dollars in code, dollars at the edges.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nano-dollars in a dollar.
pub const NANO_PER_USD: i64 = 1_000_000_000;

/// The largest amount accepted at an edge: a million dollars. More is a typing error, and staying below 2^53
/// nano-dollars keeps the JSON number exact.
pub const MAX_USD: i64 = 1_000_000;

/// An amount of money in integer nano-dollars (10⁻⁹ USD).
///
/// In JSON it is a number of dollars, exact to the nano-dollar. In text it is `$0.013206`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// No money.
    pub const ZERO: Self = Self(0);

    /// Whole dollars.
    #[must_use]
    pub const fn from_usd(dollars: i64) -> Self {
        Self(dollars.saturating_mul(NANO_PER_USD))
    }

    /// The amount as a floating number of dollars, for JSON and display only: never for sums.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "amounts stay below 2^53 nano-dollars (MAX_USD)")]
    pub fn as_usd(self) -> f64 {
        self.0 as f64 / NANO_PER_USD as f64
    }

    /// Rounds a claimed number of dollars to the nearest nano-dollar; `None` when it is no amount (negative, not finite,
    /// over [`MAX_USD`]). For figures that others computed in floating point; our own are never made this way.
    #[must_use]
    pub fn from_claimed_usd(dollars: f64) -> Option<Self> {
        #[expect(clippy::cast_precision_loss, reason = "MAX_USD is far below 2^53")]
        let in_range = (0.0..=MAX_USD as f64).contains(&dollars);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            reason = "in range, checked above"
        )]
        in_range.then(|| Self((dollars * NANO_PER_USD as f64).round() as i64))
    }

    /// Sum that stops at the largest amount instead of wrapping.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference that stops at the smallest amount instead of wrapping.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for NanoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.saturating_add(other)
    }
}

impl AddAssign for NanoUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for NanoUsd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.saturating_sub(other)
    }
}

impl Sum for NanoUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for NanoUsd {
    /// Writes `$1.25`: at least two decimals, as many more as the amount needs.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nano = self.0.unsigned_abs();
        let fraction = format!("{:09}", nano % NANO_PER_USD.unsigned_abs());
        let kept = fraction.trim_end_matches('0').len().max(2);
        write!(out, "{sign}${}.{}", nano / NANO_PER_USD.unsigned_abs(), &fraction[..kept])
    }
}

/// Why a text is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoneyError {
    /// Not a plain decimal number.
    #[error("read {0:?} as dollars: expected a decimal number such as 0.25")]
    Malformed(String),
    /// More than nine decimals.
    #[error("read {0:?} as dollars: a nano-dollar (nine decimals) is the smallest amount")]
    TooFine(String),
    /// Negative, or more than [`MAX_USD`].
    #[error("read {0:?} as dollars: amounts go from 0 to {MAX_USD}")]
    OutOfRange(String),
}

impl FromStr for NanoUsd {
    type Err = MoneyError;

    /// Reads plain decimal dollars, exactly: `"0.25"`, `"3"`, `"$1.50"`, and the exponent form that JSON numbers may take.
    fn from_str(text: &str) -> Result<Self, MoneyError> {
        let shown = || text.chars().take(40).collect::<String>();
        let malformed = || MoneyError::Malformed(shown());
        let plain = text.trim().trim_start_matches('$');
        let (mantissa, exponent) = match plain.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| malformed())?),
            None => (plain, 0),
        };
        let (mantissa, negative) = match mantissa.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (mantissa, false),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let digits: String = [whole, fraction].concat();
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) || digits.len() > 60 {
            return Err(malformed());
        }
        let fraction_len = i32::try_from(fraction.len()).map_err(|_| malformed())?;
        let significant = digits.trim_start_matches('0');
        if significant.is_empty() {
            return Ok(Self::ZERO);
        }
        if negative {
            return Err(MoneyError::OutOfRange(shown()));
        }
        // amount = significant × 10^(exponent − fraction_len) dollars = significant × 10^shift nano-dollars.
        let shift = exponent.saturating_sub(fraction_len).saturating_add(9);
        let mut nano = significant.to_owned();
        if shift < 0 {
            let dropped = usize::try_from(shift.unsigned_abs()).map_err(|_| malformed())?;
            if dropped > nano.len() || nano[nano.len() - dropped..].bytes().any(|byte| byte != b'0') {
                return Err(MoneyError::TooFine(shown()));
            }
            nano.truncate(nano.len() - dropped);
        } else if shift > 24 {
            return Err(MoneyError::OutOfRange(shown()));
        } else {
            nano.extend(std::iter::repeat_n('0', usize::try_from(shift).map_err(|_| malformed())?));
        }
        let amount = nano.parse::<i64>().map_err(|_| MoneyError::OutOfRange(shown()))?;
        if amount > MAX_USD * NANO_PER_USD {
            return Err(MoneyError::OutOfRange(shown()));
        }
        Ok(Self(amount))
    }
}

impl Serialize for NanoUsd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.as_usd())
    }
}

impl<'de> Deserialize<'de> for NanoUsd {
    /// Reads a JSON number or string of dollars.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(number) => number.to_string(),
            serde_json::Value::String(text) => text,
            other => return Err(serde::de::Error::custom(format!("expected dollars, found {other}"))),
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_dollars_exactly() {
        for (text, nano, shown) in [
            ("0", 0, "$0.00"),
            ("1", 1_000_000_000, "$1.00"),
            ("0.25", 250_000_000, "$0.25"),
            ("$0.013206", 13_206_000, "$0.013206"),
            ("0.000000001", 1, "$0.000000001"),
            ("1e-7", 100, "$0.0000001"),
            ("1.50e1", 15_000_000_000, "$15.00"),
            ("1000000", 1_000_000_000_000_000, "$1000000.00"),
            ("0.10000000000", 100_000_000, "$0.10"),
        ] {
            let amount: NanoUsd = text.parse().unwrap();
            assert_eq!((amount.0, amount.to_string().as_str()), (nano, shown), "{text}");
        }
        assert_eq!(NanoUsd(-5_000_000).to_string(), "-$0.005");
    }

    #[test]
    fn refuses_what_is_no_amount() {
        for text in
            ["", "-1", "abc", "1.2.3", "NaN", "1e400", "0.0000000001", "1000001", "$", "1e-400", "--1"]
        {
            assert!(text.parse::<NanoUsd>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_is_a_number_of_dollars() {
        assert_eq!(serde_json::to_string(&NanoUsd(13_206_000)).unwrap(), "0.013206");
        assert_eq!(serde_json::from_str::<NanoUsd>("0.3").unwrap(), NanoUsd(300_000_000));
        assert_eq!(serde_json::from_str::<NanoUsd>("\"0.3\"").unwrap(), NanoUsd(300_000_000));
        assert!(serde_json::from_str::<NanoUsd>("true").is_err());
    }
}
