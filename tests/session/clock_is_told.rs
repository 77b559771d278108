use std::time::Duration;

use super::pair::Pair;

#[test]
fn the_clock_of_the_capture_stamps_can_be_asked_for() {
    let mut pair = Pair::connected(Duration::from_millis(5));
    pair.say(r#"{"jsonrpc":"2.0","id":1,"method":"session.clock"}"#);
    let asked = 1_700_000_000_000.0 + pair.elapsed().as_secs_f64() * 1_000.0;
    pair.run_until(Duration::from_secs(1), |pair| {
        pair.heard.iter().any(|text| text.contains(r#""id":1"#))
    });
    let reply = pair.heard.iter().find(|text| text.contains(r#""id":1"#)).expect("a reply");
    let reply: serde_json::Value = serde_json::from_str(reply).expect("JSON");
    let received = reply["result"]["received_ms"].as_f64().expect("a time");
    assert!(
        (received - asked - 5.0).abs() < 0.5,
        "asked at {asked}, received 5 ms later, told {received}"
    );
}
