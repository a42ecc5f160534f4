// No validator: it would be another host, and judge.js has judged the document.
SwaggerUIBundle({ url: 'openapi.json', dom_id: '#page', deepLinking: true, validatorUrl: null, tryItOutEnabled: false });
