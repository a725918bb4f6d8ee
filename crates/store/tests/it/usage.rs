//! Sums of usage: equal to what adding up by hand gives.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::sample::subsequence;
use wardian_protocol::NanoUsd;
use wardian_store::{
    GroupBy, Settled, SqliteStore, Store, Tokens, UsageEnd, UsageQuery, UsageRow, UsageStart,
};

use crate::common::{at, end, id, start};

/// One record: its start and, if it was settled, its end.
type Record = (UsageStart, Option<UsageEnd>);

fn record(n: u64) -> impl Strategy<Value = Record> {
    let org_id: wardian_protocol::OrgId = "org_default".parse().unwrap();
    let who = (0..3u8, 1..4u64, 0..3u8, prop::option::of(0..3u8));
    let what = (0..200_000i64, 0..3usize, 0..5000u64, 0..5000u64, any::<bool>());
    let opened = (who, what, 0..1_000_000i64, any::<bool>());
    opened.prop_map(move |((user, session, model, answered), what, nano, is_settled)| {
        let (seconds, settled, input, cache, unpriced) = what;
        let model_name = |model: u8| format!("model-{model}");
        let start = UsageStart {
            user_id: (user > 0).then(|| format!("user-{user}")),
            session_id: id(session),
            run_id: id(session * 10),
            model: model_name(model),
            bound: NanoUsd(nano * 2),
            at: at(seconds),
            ..start(&org_id, n, "here")
        };
        let tokens = Tokens {
            input_tokens: input,
            output_tokens: input / 2,
            cache_read_tokens: cache,
            cache_write_5m_tokens: cache / 3,
            cache_write_1h_tokens: cache / 5,
            web_search_requests: input % 3,
        };
        let end = UsageEnd {
            model: answered.map(model_name),
            tokens,
            unpriced,
            settled: [Settled::Exact, Settled::Estimated, Settled::AtBound][settled],
            ..end(&org_id, n, nano)
        };
        (start, is_settled.then_some(end))
    })
}

fn query() -> impl Strategy<Value = UsageQuery> {
    let all = vec![GroupBy::User, GroupBy::Session, GroupBy::Model, GroupBy::Day];
    let groups = subsequence(all, 0..=4).prop_shuffle();
    let filters = (
        prop::option::of(1..3u8),
        prop::option::of(1..5u64),
        prop::option::of(1..5u64),
        prop::option::of(0..3u8),
        prop::option::of(-1..200_000i64),
        prop::option::of(-1..200_000i64),
    );
    (groups, filters).prop_map(|(group_by, (user, session, run, model, from, to))| UsageQuery {
        user_id: user.map(|user| format!("user-{user}")),
        session_id: session.map(id),
        run_id: run.map(|run| id(run * 10)),
        model: model.map(|model| format!("model-{model}")),
        from: from.map(at),
        to: to.map(at),
        group_by,
    })
}

/// Adds up one after the other, the simple way.
fn naive(records: &[Record], query: &UsageQuery) -> Vec<UsageRow> {
    let mut rows: BTreeMap<Vec<Option<String>>, UsageRow> = BTreeMap::new();
    if query.group_by.is_empty() {
        rows.insert(Vec::new(), UsageRow::default());
    }
    for (start, end) in records {
        let model = end.as_ref().and_then(|end| end.model.clone()).unwrap_or_else(|| start.model.clone());
        let fits = query.user_id.as_ref().is_none_or(|user| start.user_id.as_ref() == Some(user))
            && query.session_id.as_ref().is_none_or(|session| start.session_id == *session)
            && query.run_id.as_ref().is_none_or(|run| start.run_id == *run)
            && query.model.as_ref().is_none_or(|asked| model == *asked)
            && query.from.is_none_or(|from| start.at >= from)
            && query.to.is_none_or(|to| start.at < to);
        if !fits {
            continue;
        }
        let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
        let keys = query.group_by.iter().map(|by| match by {
            GroupBy::User => start.user_id.clone(),
            GroupBy::Session => Some(start.session_id.to_string()),
            GroupBy::Model => Some(model.clone()),
            GroupBy::Day => Some(day(start.at).to_string()),
        });
        let row = rows.entry(keys.collect()).or_default();
        for by in &query.group_by {
            match by {
                GroupBy::User => row.user_id.clone_from(&start.user_id),
                GroupBy::Session => row.session_id = Some(start.session_id.clone()),
                GroupBy::Model => row.model = Some(model.clone()),
                GroupBy::Day => row.day = Some(day(start.at)),
            }
        }
        row.requests += 1;
        match end {
            None => {
                row.open_requests += 1;
                row.reserved += start.bound;
            }
            Some(end) => {
                row.inexact_requests += u64::from(end.settled != Settled::Exact);
                row.unpriced_requests += u64::from(end.unpriced);
                row.tokens = row.tokens.plus(end.tokens);
                row.cost += end.cost;
            }
        }
    }
    rows.into_values().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sums_are_those_of_adding_up_by_hand(
        records in (0..40usize).prop_flat_map(|number| (0..number as u64).map(|n| record(n + 1)).collect::<Vec<_>>()),
        queries in prop::collection::vec(query(), 1..8),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = SqliteStore::open_in_memory().unwrap();
            let org_id = store.default_org().await.unwrap();
            for (start, end) in &records {
                store.open_usage(start.clone()).await.unwrap();
                if let Some(end) = end {
                    assert!(store.settle_usage(end.clone()).await.unwrap());
                    assert!(!store.settle_usage(end.clone()).await.unwrap());
                }
            }
            for query in &queries {
                assert_eq!(store.usage(&org_id, query.clone()).await.unwrap(), naive(&records, query), "{query:?}");
            }
        });
    }
}

#[tokio::test]
async fn a_request_counts_for_the_utc_day_of_its_start() {
    let store = SqliteStore::open_in_memory().unwrap();
    let org_id = store.default_org().await.unwrap();
    for (n, time) in
        ["2026-11-22T23:59:59.999999Z", "2026-11-23T00:00:00Z", "2024-02-29T12:00:00Z"].iter().enumerate()
    {
        let start = UsageStart { at: time.parse().unwrap(), ..start(&org_id, n as u64, "here") };
        store.open_usage(start).await.unwrap();
    }
    let query = UsageQuery { group_by: vec![GroupBy::Day], ..UsageQuery::default() };
    let days: Vec<_> =
        store.usage(&org_id, query).await.unwrap().iter().map(|row| row.day.unwrap().to_string()).collect();
    assert_eq!(days, ["2024-02-29", "2026-11-22", "2026-11-23"]);
}
