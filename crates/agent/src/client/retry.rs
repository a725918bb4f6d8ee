//! Whether a failed request is made again, and after how long. Pure: clock and chance are parameters.

use std::time::Duration;

use jiff::Timestamp;

use super::failure::{Failure, FailureKind};
use crate::RetryPolicy;

/// Says how long to wait before the next try; `None`: no more tries.
///
/// `attempt` is the number of the next retry, from 1; `elapsed` counts from the first try; `chance` is in 0..1.
pub(crate) fn delay(
    policy: &RetryPolicy,
    failure: &Failure,
    attempt: u32,
    elapsed: Duration,
    now: Timestamp,
    chance: f64,
) -> Option<Duration> {
    // A key that is refused may have just been replaced where a gateway holds it; a second refusal is meant.
    let is_refused_key = failure.status() == Some(401) && failure.should_retry != Some(false);
    let again = if is_refused_key { attempt == 1 } else { retryable(failure) };
    if attempt > policy.max_retries || !again {
        return None;
    }
    let asked = failure.retry_after.as_deref().and_then(|text| read_retry_after(text, now));
    let wait = asked.unwrap_or_else(|| {
        let doubled = policy.first_delay.saturating_mul(1 << attempt.saturating_sub(1).min(20));
        // Up to a quarter more, so that many agents that failed together do not come back together.
        doubled.min(policy.max_delay).mul_f64(1.0 + chance.clamp(0.0, 1.0) / 4.0)
    });
    (elapsed.saturating_add(wait) <= policy.deadline).then_some(wait)
}

/// source: the gateway reference, section 4: 408, 409, 429, 5xx, unless `x-should-retry` says otherwise.
pub(crate) fn retryable(failure: &Failure) -> bool {
    if let Some(said) = failure.should_retry {
        return said;
    }
    match &failure.kind {
        FailureKind::Lost => true,
        FailureKind::Malformed | FailureKind::Local | FailureKind::NotLoggedIn => false,
        FailureKind::Status { .. } | FailureKind::InStream { .. } => {
            matches!(failure.status(), Some(408 | 409 | 429 | 500..))
        }
    }
}

/// Reads `retry-after`: seconds, or a date.
fn read_retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let date = Timestamp::try_from(httpdate::parse_http_date(text).ok()?).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use wardian_protocol::ApiErrorKind;

    use super::*;

    fn status(status: u16) -> Failure {
        Failure::new(FailureKind::Status { status, kind: None }, "")
    }

    fn millis(failure: &Failure, attempt: u32, elapsed_s: u64) -> Option<u128> {
        let now = "2026-11-22T12:00:00Z".parse().unwrap();
        let elapsed = Duration::from_secs(elapsed_s);
        delay(&RetryPolicy::default(), failure, attempt, elapsed, now, 0.0).map(|wait| wait.as_millis())
    }

    #[test]
    fn which_failures_are_tried_again() {
        for (code, again) in [
            (400, false),
            (401, true),
            (403, false),
            (404, false),
            (408, true),
            (409, true),
            (413, false),
            (429, true),
            (500, true),
            (503, true),
            (529, true),
        ] {
            assert_eq!(millis(&status(code), 1, 0).is_some(), again, "{code}");
        }
        assert!(millis(&Failure::lost(""), 1, 0).is_some());
        assert!(millis(&Failure::malformed(""), 1, 0).is_none());
        let in_stream = |kind| Failure::new(FailureKind::InStream { kind }, "");
        assert!(millis(&in_stream(ApiErrorKind::OverloadedError), 1, 0).is_some());
        assert!(millis(&in_stream(ApiErrorKind::InvalidRequestError), 1, 0).is_none());
    }

    #[test]
    fn the_api_may_overrule() {
        assert!(millis(&Failure { should_retry: Some(false), ..status(529) }, 1, 0).is_none());
        assert!(millis(&Failure { should_retry: Some(true), ..status(400) }, 1, 0).is_some());
    }

    #[test]
    fn waits_double_up_to_a_limit_and_end() {
        let waits: Vec<_> = (1..=11).map(|attempt| millis(&status(500), attempt, 0)).collect();
        let expected = [500, 1000, 2000, 4000, 8000, 16000, 32000, 32000, 32000, 32000];
        assert_eq!(waits[..10], expected.map(Some));
        assert_eq!(waits[10], None);
        assert!(millis(&status(500), 1, 600).is_none(), "the deadline has come");
    }

    #[test]
    fn chance_adds_up_to_a_quarter() {
        let now = Timestamp::UNIX_EPOCH;
        let wait = |chance| delay(&RetryPolicy::default(), &status(500), 1, Duration::ZERO, now, chance);
        assert_eq!(wait(0.5), Some(Duration::from_micros(562_500)));
        assert_eq!(wait(7.0), Some(Duration::from_millis(625)));
    }

    #[test]
    fn retry_after_is_honoured_in_seconds_and_as_a_date() {
        let after = |text: &str| Failure { retry_after: Some(text.to_owned()), ..status(429) };
        for (text, expected) in [
            ("3", Some(3000)),
            ("0.25", Some(250)),
            ("0", Some(0)),
            ("Sun, 22 Nov 2026 12:01:00 GMT", Some(60_000)),
            ("Sun, 22 Nov 2026 11:59:00 GMT", Some(0)),
            // Nonsense falls back to our own wait.
            ("soon", Some(500)),
            ("-1", Some(500)),
            ("NaN", Some(500)),
            ("1e300", Some(500)),
            // Longer than the deadline: no use in waiting.
            ("86400", None),
        ] {
            assert_eq!(millis(&after(text), 1, 0), expected, "{text}");
        }
    }
}
