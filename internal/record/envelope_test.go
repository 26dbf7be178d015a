package record

import (
	"bytes"
	"encoding/json"
	"testing"
)

// decoded is an envelope as the JSON package alone reads it.
func decoded(data []byte) (env envelope, body any, err error) {
	if err = json.Unmarshal(data, &env); err == nil {
		err = json.Unmarshal(env.Body, &body)
	}
	return env, body, err
}

func TestASealedDocumentIsWhatTheJSONPackageWrites(t *testing.T) {
	for _, boot := range []string{"59b71467-698b", "", `od"d,"body":<&>`} {
		for _, body := range []any{doc{"x"}, map[string]any{}, nil, "text", doc{`"body":`}} {
			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(envelope{Schema: Schema, Boot: boot, Body: raw})
			if err != nil {
				t.Fatal(err)
			}
			got, err := (&Store{boot: boot}).seal(body)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("got %s, want %s, %v", got, want, err)
			}
			env, err := unseal(got)
			if err != nil || env.Schema != Schema || env.Boot != boot || !bytes.Equal(env.Body, raw) {
				t.Errorf("%s is read as %+v %s, %v", got, env, env.Body, err)
			}
		}
	}
}

func FuzzUnseal(f *testing.F) {
	whole, err := (&Store{boot: "b"}).seal(map[string]any{"a": map[string]any{"b": []int{1}}})
	if err != nil {
		f.Fatal(err)
	}
	for cut := range whole {
		f.Add(whole[:cut]) // torn
	}
	f.Add(append(whole, '\n'))
	f.Add([]byte(`{"schema":1,"boot":"b","more":2,"body":{}}`))
	f.Add([]byte(`{"schema":2,"body":{},"boot":"b"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		want, _, wantErr := decoded(data)
		got, err := unseal(data)
		var body any
		if err == nil {
			err = json.Unmarshal(got.Body, &body)
		}
		if wantErr == nil && err != nil {
			t.Errorf("%q is a document, and %v", data, err)
		}
		if wantErr == nil && bytes.Count(data, []byte(`"body"`)) == 1 && (got.Boot != want.Boot || got.Schema != want.Schema) {
			t.Errorf("%q is read as %+v, not %+v", data, got, want)
		}
	})
}
