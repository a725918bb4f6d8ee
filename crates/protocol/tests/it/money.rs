//! Amounts, there and back.

use proptest::prelude::*;
use wardian_protocol::NanoUsd;
use wardian_protocol::money::{MAX_USD, NANO_PER_USD};

proptest! {
    #[test]
    fn amounts_go_through_json_and_text_exactly(nano in 0..=MAX_USD * NANO_PER_USD, small in 0..10_000_i64) {
        for nano in [nano, small, nano - nano % 1_000_003] {
            let amount = NanoUsd(nano);
            let json = serde_json::to_string(&amount).unwrap();
            prop_assert_eq!(serde_json::from_str::<NanoUsd>(&json).unwrap(), amount, "{}", json);
            prop_assert_eq!(amount.to_string().parse::<NanoUsd>().unwrap(), amount);
            prop_assert_eq!(NanoUsd::from_claimed_usd(amount.as_usd()), Some(amount));
        }
    }

    #[test]
    fn no_text_panics(text in "[-$+.0-9eE ]{0,30}", any in ".{0,20}") {
        for text in [text, any] {
            if let Ok(amount) = text.parse::<NanoUsd>() {
                prop_assert!((0..=MAX_USD * NANO_PER_USD).contains(&amount.0));
            }
        }
    }

    #[test]
    fn sums_stop_instead_of_wrapping(one: i64, other: i64) {
        let sum = i128::from(one) + i128::from(other);
        let expected = sum.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        prop_assert_eq!(i128::from((NanoUsd(one) + NanoUsd(other)).0), expected);
    }
}
