// What the examples of README.md and GUIDE.md share: a model that says what a script tells it to, and options for it.

/// A scripted model, a folder to work in, and options that lead to both.
pub async fn scripted(replies: &str) -> (wardian_model::Server, tempfile::TempDir, wardian_agent::Options) {
    let script = wardian_model::Script::parse(&format!("{{\"replies\": {replies}}}")).unwrap();
    let address = "127.0.0.1:0".parse().unwrap();
    let model = wardian_model::Server::bind(script, address, Default::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = wardian_agent::Options {
        cwd: folder.path().to_owned(),
        model: "claude-sonnet-5".to_owned(),
        env: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
        output_dir: Some(folder.path().join(".outputs")),
        api: wardian_agent::ApiConfig {
            endpoint: wardian_agent::Endpoint::Url(model.base_url()),
            key: wardian_agent::ApiKey::key("sk-test"),
            ..Default::default()
        },
        ..Default::default()
    };
    (model, folder, options)
}

/// The results of the calls that the model was told of.
pub fn heard(model: &wardian_model::Server) -> String {
    model.requests().last().unwrap().body["messages"].to_string()
}
