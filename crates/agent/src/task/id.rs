//! The names of tasks and of their runs, in the forms of the reference CLI.

use jiff::Timestamp;

/// A subagent's: `a` and 16 hex digits.
pub(super) fn agent() -> String {
    format!("a{:016x}", random())
}

/// A command's: `b` and 8 letters or digits.
pub(super) fn command() -> String {
    format!("b{:0>8}", base36(random() % 36_u64.pow(8)))
}

/// A run's: those of later runs sort after.
pub(super) fn run(now: Timestamp) -> String {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
    format!("{:0>9}-{:08x}", base36(millis), random() & 0xffff_ffff)
}

fn random() -> u64 {
    getrandom::u64().expect("the system gives random bytes once it is up")
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(number % 36).expect("it is below 36");
        digits.push(char::from_digit(digit, 36).expect("it is below 36"));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_their_forms() {
        assert_eq!((agent().len(), &agent()[..1]), (17, "a"));
        assert_eq!((command().len(), &command()[..1]), (9, "b"));
        assert_eq!(base36(0), "0");
        assert_eq!(base36(36 * 36 + 35), "10z");
        let (early, late) = (
            Timestamp::from_millisecond(1_000).unwrap(),
            Timestamp::from_millisecond(1_795_388_721_676).unwrap(),
        );
        assert!(run(early) < run(late), "{} {}", run(early), run(late));
        assert_eq!(run(late).len(), 18);
    }
}
