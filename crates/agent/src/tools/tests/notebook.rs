use serde_json::{Value, json};

use super::Place;

fn notebook() -> String {
    let notebook = json!({
        "cells": [
            {"cell_type": "code", "execution_count": 1, "id": "c1", "metadata": {}, "source": ["print('hi')\n", "x"], "outputs": [
                {"output_type": "stream", "name": "stdout", "text": ["hi\n", "there"]},
                {"output_type": "execute_result", "data": {"text/plain": ["42"], "image/png": "iVBORw0K\nGgo="}},
                {"output_type": "error", "ename": "E", "evalue": "bad", "traceback": ["one", "two"]},
            ]},
            {"cell_type": "markdown", "id": "m1", "metadata": {}, "source": "# T"},
        ],
        "metadata": {"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5,
    });
    format!("{notebook}\n")
}

#[tokio::test]
async fn a_notebook_is_shown_by_its_cells() {
    let place = Place::new();
    let path = place.put("a.ipynb", notebook());
    let output = place.call("Read", json!({"file_path": "a.ipynb"})).await;
    assert_eq!(
        output.content,
        json!([
            {"type": "text", "text": "<cell id=\"c1\">print('hi')\nx</cell>\n<output>hi\nthere</output>\n<output>42</output>"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "text", "text": "<output>E: bad\none\ntwo</output>\n<cell id=\"m1\" type=\"markdown\"># T</cell>"},
        ])
    );
    let image = json!({"image_data": "iVBORw0KGgo=", "media_type": "image/png"});
    assert_eq!(
        output.structured,
        json!({"type": "notebook", "file": {"filePath": path, "cells": [
            {"cellType": "code", "source": "print('hi')\nx", "cell_id": "c1", "language": "python", "execution_count": 1, "outputs": [
                {"output_type": "stream", "text": "hi\nthere"},
                {"output_type": "execute_result", "text": "42", "image": image},
                {"output_type": "error", "text": "E: bad\none\ntwo"},
            ]},
            {"cellType": "markdown", "source": "# T", "cell_id": "m1"},
        ]}})
    );
}

#[tokio::test]
async fn cells_are_replaced_put_in_and_taken_out() {
    let place = Place::new();
    place.put("a.ipynb", notebook());
    let edit = |id: Value, source: &str, more: Value| {
        let mut input = json!({"notebook_path": "a.ipynb", "cell_id": id, "new_source": source});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let unread = place.fails("NotebookEdit", edit(json!("c1"), "y", json!({}))).await;
    assert!(unread.contains("not been read"), "{unread}");
    place.call("Read", json!({"file_path": "a.ipynb"})).await;
    let replaced = place.call("NotebookEdit", edit(json!("c1"), "y = 1\nz", json!({}))).await;
    assert!(!replaced.is_error, "{}", replaced.content);
    let structured = &replaced.structured;
    assert_eq!(structured["old_source"], "print('hi')\nx");
    assert_eq!(structured["original_file"], notebook());
    assert_eq!(structured["updated_file"], place.get("a.ipynb"));
    for (field, expected) in [
        ("cell_type", "code"),
        ("language", "python"),
        ("edit_mode", "replace"),
        ("cell_id", "c1"),
        ("error", ""),
    ] {
        assert_eq!(structured[field], expected);
    }
    let insert = json!({"edit_mode": "insert", "cell_type": "markdown"});
    let inserted = place.call("NotebookEdit", edit(json!("c1"), "new", insert)).await;
    let id = inserted.structured["cell_id"].as_str().unwrap().to_owned();
    assert_eq!(id.len(), 8);
    place.ok("NotebookEdit", edit(json!("m1"), "", json!({"edit_mode": "delete"}))).await;
    place
        .ok("NotebookEdit", edit(Value::Null, "top", json!({"edit_mode": "insert", "cell_type": "code"})))
        .await;
    place.ok("NotebookEdit", edit(json!("cell-0"), "# top", json!({"cell_type": "markdown"}))).await;
    let text = place.get("a.ipynb");
    assert!(text.ends_with("}\n") && text.starts_with("{\n \"cells\": ["), "{text}");
    let now: Value = serde_json::from_str(&text).unwrap();
    let cells: Vec<_> =
        now["cells"].as_array().unwrap().iter().map(|cell| (&cell["cell_type"], &cell["source"])).collect();
    assert_eq!(
        cells,
        [
            (&json!("markdown"), &json!("# top")),
            (&json!("code"), &json!("y = 1\nz")),
            (&json!("markdown"), &json!("new"))
        ]
    );
    assert_eq!(now["cells"][1]["outputs"], json!([]));
    assert!(now["cells"][0].get("outputs").is_none());
}

#[tokio::test]
async fn what_cannot_be_changed_stays_as_it_is() {
    let place = Place::new();
    place.put("a.ipynb", notebook());
    place.put("a.txt", "text");
    place.call("Read", json!({"file_path": "a.ipynb"})).await;
    for (input, says) in [
        (json!({"notebook_path": "a.txt", "new_source": "x"}), "no notebook"),
        (json!({"notebook_path": "b.ipynb", "new_source": "x"}), "does not exist"),
        (json!({"notebook_path": "a.ipynb", "new_source": "x"}), "cell_id"),
        (json!({"notebook_path": "a.ipynb", "new_source": "x", "cell_id": "zz"}), "no cell \"zz\""),
        (
            json!({"notebook_path": "a.ipynb", "new_source": "x", "cell_id": "cell-99999999999999999999"}),
            "no cell",
        ),
        (json!({"notebook_path": "a.ipynb", "new_source": "x", "edit_mode": "insert"}), "cell_type"),
        (json!({"notebook_path": "a.ipynb", "new_source": "x", "edit_mode": "eat"}), "edit_mode"),
    ] {
        let text = place.fails("NotebookEdit", input.clone()).await;
        assert!(text.contains(says), "{input}: {text}");
    }
    assert_eq!(place.get("a.ipynb"), notebook());
}

#[tokio::test]
async fn hostile_notebooks_are_refused_or_bounded() {
    let place = Place::new();
    for (name, content) in [
        ("cut.ipynb", notebook()[..200].to_owned()),
        ("list.ipynb", "[]".to_owned()),
        ("cells.ipynb", json!({"cells": [1, 2]}).to_string()),
        ("none.ipynb", json!({"cells": {}}).to_string()),
        ("deep.ipynb", format!("{{\"cells\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000))),
    ] {
        place.put(name, content);
        let text = place.fails("Read", json!({"file_path": name})).await;
        assert!(text.contains("no notebook"), "{name}: {text}");
    }
    let image = json!({"output_type": "display_data", "data": {"image/png": "A".repeat(100_000)}});
    let cell = json!({"cell_type": "code", "source": "x", "outputs": vec![image; 50]});
    place.put("images.ipynb", json!({"cells": [cell]}).to_string());
    let output = place.call("Read", json!({"file_path": "images.ipynb"})).await;
    assert!(output.content.to_string().len() + output.structured.to_string().len() < 1024 * 1024);
    let cell = json!({"cell_type": "code", "source": "x".repeat(200_000), "outputs": []});
    place.put("long.ipynb", json!({"cells": [cell]}).to_string());
    assert!(place.fails("Read", json!({"file_path": "long.ipynb"})).await.contains("jq"));
}

#[tokio::test]
async fn a_pdf_is_shown_as_a_document() {
    let place = Place::new();
    let path = place.put("a.pdf", "%PDF-1.4\n…");
    let output = place.call("Read", json!({"file_path": "a.pdf"})).await;
    let data = "JVBERi0xLjQK4oCm";
    assert_eq!(
        output.content,
        json!([{"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": data}}])
    );
    let file = json!({"filePath": path, "base64": data, "originalSize": 12});
    assert_eq!(output.structured, json!({"type": "pdf", "file": file}));
    let pages = place.fails("Read", json!({"file_path": "a.pdf", "pages": "1-2"})).await;
    assert!(pages.contains("pdftotext"), "{pages}");
    place.put("big.pdf", [b"%PDF-1.4\n".as_slice(), &vec![b'x'; 4_000_000]].concat());
    assert!(place.fails("Read", json!({"file_path": "big.pdf"})).await.contains("pdftotext"));
}
